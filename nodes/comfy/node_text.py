"""Lines of text on the node itself, below its widgets."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.progress import get_progress_state
from server import PromptServer

from ...pid_core.errors import one_line

IN_SUBGRAPH = "pidkit_text"  # the event that js/status.js waits for

_own: dict[str, list[str]] = {}  # what nodes of the running prompt wrote on themselves
_prompt: str | None = None


def show_on_node(node: type[io.ComfyNode], *lines: str) -> None:
    """Write lines on the node that is running; outside a run (called from Python) nothing happens."""
    send_text(node.hidden.unique_id if node.hidden else None, *lines)


def send_text(node_id: str | None, *lines: str) -> None:
    """Write lines on a node, also while another one runs; without an id nothing happens.

    A node that another one expanded into is not on the canvas: its lines go below that one's own. A node without lines
    makes room for those of the nodes it expands into.
    """
    if not node_id:
        return
    graph = _running_graph()
    _own[node_id] = [one_line(line) for line in lines if line]
    family = [node_id]
    while (parent := graph.get_parent_node_id(family[0])) is not None:
        family.insert(0, parent)
    shown = dict.fromkeys(line for member in family for line in _own.get(member, []))
    if shown:
        # the Vue rendering of nodes takes a line's end for a space
        text, server = ";\n".join(shown), PromptServer.instance
        if server.client_id is not None:  # whose prompt it is; without one it would go to all
            _send(server, text, graph.get_display_node_id(node_id))


def _send(server: PromptServer, text: str, node_id: str) -> None:
    if ":" in node_id:  # ComfyUI's front end cannot show these, except where the subgraph is open: js/status.js does
        server.send_sync(IN_SUBGRAPH, {"nodeId": node_id, "text": text}, server.client_id)
    else:
        server.send_progress_text(text, node_id, server.client_id)


def _running_graph():
    global _prompt
    progress = get_progress_state()
    if progress.prompt_id != _prompt:
        _own.clear()
        _prompt = progress.prompt_id
    return progress.dynprompt
