// The line of an error, on the node it is about: raised in a run, or found before it; in a toast where that node is out of
// sight. ComfyUI itself shows such lines in a panel that must be opened first. They go when something is queued or starts.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { nodeBefore, nodesOf } from "./graph.js";
import { NodeLine } from "./node_line.js";
import { statusOf } from "./status.js";
import { word } from "./words.js";

const NAME = "pidkit_error";
const OURS = "PiDKit";
const READABLE = 0.5; // of the canvas's scale
// The pack's folder in custom_nodes, as the server names it in tracebacks.
const FOLDER = decodeURIComponent(new URL(import.meta.url).pathname.split("/extensions/")[1].split("/")[0]);

class ErrorLine extends NodeLine {
  constructor(node, text) {
    const status = statusOf(node);
    if (status) node.removeWidget(status); // what it was doing is no longer true
    super(node, NAME, { className: "pidkit-error", role: "alert" }, text);
  }

  // On the page, and large enough to be read.
  get isInView() {
    const { left, right, top, bottom, width } = this.root.getBoundingClientRect();
    const view = app.canvas.canvas.getBoundingClientRect();
    const inside = left >= view.left && right <= view.right && top >= view.top && bottom <= view.bottom;
    return width > 0 && inside && app.canvas.ds.scale >= READABLE;
  }
}

const shown = new Map(); // node -> its ErrorLine
const toasts = [];
let refused; // id of the last prompt of which a part was refused; the rest of it runs

async function show(id, text) {
  const nodes = nodesOf(id);
  if (!nodes.length) return; // another workflow is open by now
  const name = nodes.at(-1).title;
  const lines = nodes.map((node, i) => {
    shown.get(node)?.remove();
    const line = new ErrorLine(node, i === nodes.length - 1 ? text : `${name}: ${text}`);
    shown.set(node, line);
    return line;
  });
  await Promise.all(lines.map((line) => line.shown));
  const gone = !lines.some((line) => shown.get(line.node) === line);
  if (gone || lines.some((line) => line.isInView)) return;
  // ComfyUI's own message only says that there was an error.
  const toast = { severity: "error", summary: name, detail: text, life: 30000, styleClass: "pidkit-toast" };
  toasts.push(toast);
  app.extensionManager.toast.add(toast);
}

function clear() {
  shown.forEach((line) => line.remove());
  shown.clear();
  toasts.splice(0).forEach((toast) => app.extensionManager.toast.remove(toast));
}

// Whether this pack raised it: in a node of its own, or in its model while another node ran it.
function isOurs({ node_type: type, traceback }) {
  const place = traceback?.at(-1) ?? "";
  return type?.startsWith(OURS) || ["/", "\\"].some((slash) => place.includes(`custom_nodes${slash}${FOLDER}${slash}`));
}

// Whether a node of ComfyUI's failed because it was given PiD's pixels and the VAE of a latent.
function hasPixelsForLatent(node) {
  const vae = node?.comfyClass?.startsWith("VAEDecode") && nodeBefore(node, "vae");
  if (!vae || vae.comfyClass === "PiDKitPixelVAE" || vae.widgets?.some(({ value }) => value === "pixel_space")) {
    return false;
  }
  const waiting = [nodeBefore(node, "samples")];
  const seen = new Set();
  while (waiting.length) {
    const current = waiting.pop();
    if (!current || seen.has(current)) continue;
    if (current.comfyClass === "PiDKitLoader") return true;
    seen.add(current);
    const inputs = current.inputs.filter(({ type }) => ["LATENT", "MODEL", "GUIDER"].includes(type));
    waiting.push(...inputs.map(({ name }) => nodeBefore(current, name)));
  }
  return false;
}

// ComfyUI puts the input's name before what a node's own check answers, and repeats the answer for every input.
function refusals({ errors, class_type: type }) {
  if (!type?.startsWith(OURS)) return [];
  const lines = errors.map(({ type: kind, message, details, extra_info: { input_name: input } = {} }) => {
    const own = kind === "custom_validation_failed" && details.startsWith(`${input} - `);
    return own ? details.slice(`${input} - `.length) : [message, details].filter(Boolean).join(": ");
  });
  return [...new Set(lines)];
}

function showRefused(answer) {
  refused = answer?.prompt_id;
  for (const [id, report] of Object.entries(answer?.node_errors ?? {})) {
    const lines = refusals(report);
    if (lines.length) show(id, lines.join("\n"));
  }
}

app.registerExtension({
  name: "PiDKit.Errors",

  setup() {
    api.addEventListener("promptQueueing", clear);
    api.addEventListener("execution_start", ({ detail }) => {
      if (detail.prompt_id !== refused) clear();
    });
    api.addEventListener("execution_error", ({ detail }) => {
      if (isOurs(detail)) show(detail.node_id, detail.exception_message.trim());
      else if (hasPixelsForLatent(nodesOf(detail.node_id).at(-1))) show(detail.node_id, word("pixelVae"));
    });
    // What is found before a run comes as the answer to the request; there is no event for it.
    const { queuePrompt } = api;
    api.queuePrompt = async function (...args) {
      try {
        const answer = await queuePrompt.apply(this, args);
        showRefused(answer);
        return answer;
      } catch (error) {
        showRefused(error.response);
        throw error;
      }
    };
  },
});
