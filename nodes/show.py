"""Lines of text on the node itself, below its widgets."""

from __future__ import annotations

from comfy_api.latest import io
from server import PromptServer


def show_on_node(node: type[io.ComfyNode], *lines: str) -> None:
    """Write lines on the node that is running; outside a run (called from Python) nothing happens."""
    send_text(node.hidden.unique_id if node.hidden else None, *lines)


def send_text(node_id: str | None, *lines: str) -> None:
    """Write lines on a node, also while another one runs; without an id nothing happens."""
    if node_id:
        # the Vue rendering of nodes takes a line's end for a space
        PromptServer.instance.send_progress_text(";\n".join(line for line in lines if line), node_id)
