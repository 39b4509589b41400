// Ways through the graph, across the edges of subgraphs.

import { app } from "../../scripts/app.js";

const SUBGRAPH_INPUT = -10; // the node that ComfyUI names as a wire's origin where it enters a subgraph

function linkOf(graph, id) {
  return id == null ? undefined : (graph.getLink?.(id) ?? graph.links?.get?.(id) ?? graph.links?.[id]);
}

// The nodes that stand for a subgraph in other graphs; it may be there several times.
function standingFor(graph) {
  const graphs = [app.rootGraph, ...(app.rootGraph.subgraphs?.values() ?? [])];
  return graphs.flatMap((one) => one.nodes.filter((node) => node.subgraph === graph));
}

// A node's ids in the prompt: its own, or in a subgraph one for every place where that subgraph stands.
export function executionIds(node) {
  if (!node.graph) return [];
  if (node.graph === app.rootGraph) return [String(node.id)];
  return standingFor(node.graph).flatMap((parent) => executionIds(parent).map((id) => `${id}:${node.id}`));
}

// The nodes behind an execution id, "5" or "5:3": those of the subgraphs around the node, then the node itself.
export function nodesOf(id) {
  const found = [];
  let graph = app.rootGraph ?? app.graph;
  for (const part of String(id).split(":")) {
    const node = graph?.getNodeById(part);
    if (!node) return [];
    found.push(node);
    graph = node.subgraph;
  }
  return found;
}

// The node that an input's wire comes from, wherever it is, or undefined.
export function nodeBefore(node, name) {
  const input = node.inputs?.find((one) => one.name === name);
  return node.graph && input && origin(node.graph, linkOf(node.graph, input.link));
}

function origin(graph, link) {
  if (!link) return undefined;
  if (Number(link.origin_id) === SUBGRAPH_INPUT) {
    const { name } = graph.inputs[link.origin_slot];
    return standingFor(graph)
      .map((parent) => nodeBefore(parent, name))
      .find(Boolean);
  }
  const node = graph.getNodeById(link.origin_id);
  if (node?.subgraph) {
    const [id] = node.subgraph.outputs[link.origin_slot]?.linkIds ?? [];
    return origin(node.subgraph, linkOf(node.subgraph, id));
  }
  return node?.type === "Reroute" ? nodeBefore(node, node.inputs[0].name) : node;
}
