"""Lines of text on the node itself, below its widgets."""

from __future__ import annotations

from comfy_api.latest import io
from server import PromptServer


def show_on_node(node: type[io.ComfyNode], *lines: str) -> None:
    """Write lines on the node that is running; outside a run (called from Python) nothing happens."""
    if node.hidden and node.hidden.unique_id:
        PromptServer.instance.send_progress_text("\n".join(lines), node.hidden.unique_id)
