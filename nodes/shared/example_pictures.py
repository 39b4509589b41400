"""Example pictures reach the input folder when they are needed: by a prompt, or by a workflow that is opened."""

from __future__ import annotations

from collections.abc import Iterable

import folder_paths
from aiohttp import web
from server import PromptServer

from ...pid_core.log import log
from ...pid_core.machine.example_pictures import example_pictures, put_example_picture

ROUTE = "/pidkit/example_pictures"


def offer_example_pictures() -> None:
    """Tells ComfyUI's server. Nothing is read or copied before a prompt or a workflow names one of our pictures."""
    server = getattr(PromptServer, "instance", None)
    if server is None:  # ComfyUI as a library, without its server
        return
    server.add_on_prompt_handler(bring_those_of_prompt)
    server.routes.post(ROUTE)(bring_those_asked_for)


def bring_those_of_prompt(data: object) -> object:
    """ComfyUI calls this before it checks a prompt, and goes on with what is returned: the same."""
    prompt = data.get("prompt") if isinstance(data, dict) else None
    nodes = prompt.values() if isinstance(prompt, dict) else ()
    inputs = [node.get("inputs") for node in nodes if isinstance(node, dict)]
    values = [value for named in inputs if isinstance(named, dict) for value in named.values()]
    _, failed = _bring(value for value in values if isinstance(value, str))
    for name, reason in failed.items():
        line = f"could not put {name} into ComfyUI's input folder ({reason}). Choose pictures of your own instead."
        log.warning("%s", line)
    return data


async def bring_those_asked_for(request: web.Request) -> web.Response:
    """For the front end. {"names": [...]} -> {"ready": [name, ...], "failed": {name: reason}}; others are left out."""
    names = (await request.json()).get("names", [])
    ready, failed = _bring(name for name in names if isinstance(name, str))
    return web.json_response({"ready": ready, "failed": failed})


def _bring(names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    ready, failed = [], {}
    for name in sorted(example_pictures().intersection(names)):
        try:
            put_example_picture(name, folder_paths.get_input_directory())
        except OSError as error:
            failed[name] = error.strerror or type(error).__name__
        else:
            ready.append(name)
    return ready, failed
