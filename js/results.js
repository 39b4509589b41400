// What a run drew from a node's pictures: the images of the first node after it that shows one per picture.

import { app } from "../../scripts/app.js";
import { pictureUrl } from "./elements.js";

const NOT_RESULTS = ["PiDKitSigmaTuner", "PiDKitSigmaSweep"];

// What the last run gave a node to show, or undefined.
export function outputsOf(node) {
  const { graph } = node;
  const key = graph === app.rootGraph || graph?.isRootGraph !== false ? node.id : `${graph.id}:${node.id}`;
  return app.nodeOutputs?.[key];
}

function* after(node) {
  const waiting = [node];
  const seen = new Set(waiting);
  while (waiting.length) {
    const current = waiting.shift();
    for (const output of current.outputs ?? []) {
      for (const id of output.links ?? []) {
        const link = current.graph.getLink?.(id) ?? current.graph.links[id];
        const next = link && current.graph.getNodeById(link.target_id);
        if (!next || seen.has(next) || NOT_RESULTS.includes(next.comfyClass)) continue;
        seen.add(next);
        waiting.push(next);
        yield next;
      }
    }
  }
}

// The address of result number `index` of `count`, or null.
export function resultOf(node, index, count) {
  for (const next of after(node)) {
    const images = outputsOf(next)?.images;
    if (images?.length === count) return pictureUrl(images[index]);
  }
  return null;
}

// The node at the other end of an input's wire, or undefined.
export function nodeBefore(node, name) {
  const id = node.inputs?.find((input) => input.name === name)?.link;
  const link = id == null ? null : (node.graph.getLink?.(id) ?? node.graph.links[id]);
  const found = link ? node.graph.getNodeById(link.origin_id) : undefined;
  return found?.type === "Reroute" ? nodeBefore(found, found.inputs[0].name) : found;
}
