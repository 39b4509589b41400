// What our nodes say of themselves in a run, in ComfyUI's own widget for such text.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { nodesOf } from "./graph.js";
import { NodeLine } from "./node_line.js";

const STATUS = "$$node-text-preview";
const OURS = "PiDKit";
const MARGIN = 10; // around every widget in the classic rendering
const LEAST = 58; // what ComfyUI gives it there, room for two lines
const MOST = 200; // from here on ComfyUI's widget scrolls

const standing = new WeakMap(); // node that stands for a subgraph -> the line with what a node inside says of itself

const isOurs = (node) => node?.comfyClass?.startsWith(OURS);

// The widget with what one of our nodes says of itself, if it has said something.
export function statusOf(node) {
  return isOurs(node) ? node.widgets?.find((widget) => widget.name === STATUS) : undefined;
}

function sayOn(node, text) {
  if (standing.has(node)) standing.get(node).text = text;
  else standing.set(node, new NodeLine(node, "pidkit_status", { className: "pidkit-status" }, text));
}

function heightOf(text, width) {
  const probe = document.createElement("div");
  probe.textContent = text;
  // as ComfyUI draws it, but for its words
  probe.style.cssText = `position: fixed; visibility: hidden; box-sizing: border-box; width: ${width - 2 * MARGIN}px;
    padding: 8px 16px; font-size: 12px; line-height: 16px; white-space: pre-wrap; overflow-wrap: anywhere`;
  document.body.append(probe);
  const { height } = probe.getBoundingClientRect();
  probe.remove();
  return Math.max(LEAST, Math.min(height, MOST) + 2 * MARGIN);
}

// ComfyUI breaks its texts in the classic rendering at any letter; ours are words.
function keepWords({ value }) {
  const plain = (text) => text.replace(/\s/g, "");
  for (const box of document.querySelectorAll(".dom-widget .break-all"))
    if (plain(box.textContent) === plain(value)) box.classList.add("pidkit-words");
}

// The Vue rendering makes a node as high as its content; the classic one cuts off what has no room.
function makeRoom(node) {
  const status = statusOf(node);
  if (!status || window.LiteGraph?.vueNodesMode) return;
  status.options.getMinHeight = () => heightOf(status.value, node.size[0]);
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  app.canvas.setDirty(true, true);
  requestAnimationFrame(() => keepWords(status)); // once ComfyUI has placed it
}

app.registerExtension({
  name: "PiDKit.Status",

  setup() {
    // ComfyUI hears this event too, and makes the widget then, in the graph that is open
    api.addEventListener("progress_text", ({ detail }) => {
      requestAnimationFrame(() => makeRoom(app.canvas.graph?.getNodeById(detail.nodeId)));
    });
    // From a node in a subgraph: shown on it while the subgraph is open, else on the node that stands for it.
    api.addEventListener("pidkit_text", ({ detail: { nodeId, text } }) => {
      const node = nodesOf(nodeId).find(({ graph }) => graph === app.canvas.graph);
      if (node?.subgraph) sayOn(node, text);
      else if (node) api.dispatchCustomEvent("progress_text", { nodeId: String(node.id), text });
    });
    // What a node said of itself in an earlier run is not true of the one that starts now.
    api.addEventListener("executing", ({ detail }) => {
      const nodes = nodesOf(detail);
      if (!isOurs(nodes.at(-1))) return;
      const status = statusOf(nodes.at(-1));
      if (status) status.value = "";
      for (const node of nodes) {
        standing.get(node)?.remove();
        standing.delete(node);
      }
    });
  },
});
