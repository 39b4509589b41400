"""Runs that fail, or do not begin."""

import pytest

from comfy_server import PromptError


def failure(comfy, graph: dict) -> PromptError:
    with pytest.raises(PromptError) as caught:
        comfy.queue(graph)
    assert comfy.alive
    return caught.value


def refused(comfy, graph: dict, node: str) -> dict[str, str]:
    """What stands at the inputs of a node that is refused before the run: input -> line."""
    details = failure(comfy, graph).details["node_errors"]
    assert list(details) == [node]
    return {
        error["extra_info"]["input_name"]: error["details"].removeprefix(f"{error['extra_info']['input_name']} - ")
        for error in details[node]["errors"]
    }
