"""Runs that fail, or do not begin."""

import pytest

from comfy_server import PromptError


def failure(comfy, graph: dict) -> PromptError:
    with pytest.raises(PromptError) as caught:
        comfy.queue(graph)
    assert comfy.alive
    return caught.value


def fails(comfy, graph: dict, *words: str, node: str | None = None) -> str:
    """Queue a graph that must fail in one line holding these words, at this node if one is named; returns the line."""
    error = failure(comfy, graph)
    line = error.message.strip()
    assert "\n" not in line
    for word in words:
        assert word in line, line
    assert node in (None, error.node_id)
    return line


def refused(comfy, graph: dict, node: str) -> dict[str, str]:
    """What stands at the inputs of a node that is refused before the run: input -> line."""
    details = failure(comfy, graph).details["node_errors"]
    assert list(details) == [node]
    return {
        error["extra_info"]["input_name"]: error["details"].removeprefix(f"{error['extra_info']['input_name']} - ")
        for error in details[node]["errors"]
    }
