"""Counts the PiD network's calls in the test server. ComfyUI's progress events leave out steps that come too fast."""

from aiohttp import web
from server import PromptServer
from torch.nn.modules.module import register_module_forward_pre_hook

NETWORK = "ComfyPiDNetwork"
_calls = 0


def _count(module, _):
    global _calls
    _calls += type(module).__name__ == NETWORK


@PromptServer.instance.routes.get("/pidkit_tests/network_calls")
async def network_calls(_):
    return web.json_response({"calls": _calls})


register_module_forward_pre_hook(_count)
NODE_CLASS_MAPPINGS = {}
