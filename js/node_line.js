// A line of text of ours on a node, below its widgets: for as long as it is true, and no part of the workflow.

import { app } from "../../scripts/app.js";
import { addWidget, element, linked } from "./elements.js";

export class NodeLine {
  // properties: of the element.
  constructor(node, name, properties, text) {
    this.node = node;
    this.root = element("div", properties, ...linked(text));
    this.height = node.size[1];
    this.widget = addWidget(node, name, "PIDKIT_LINE", this.root, this.root, {
      serialize: false,
      getMinHeight: () => this.neededHeight,
    });
    this.widget.serialize = false;
    this.resize(node.size[1]);
    this.shown = this.attach();
  }

  // Nodes 2.0 of older front ends draws on a node that stands for a subgraph what was promoted from it, and no more.
  async attach() {
    await drawn();
    const isOpen = this.node.graph === app.canvas.graph;
    if (this.root.isConnected || this.removed || !isOpen || !window.LiteGraph?.vueNodesMode) return;
    document.querySelector(`[data-testid="node-body-${this.node.id}"]`)?.append(this.root);
    this.root.classList.add("pidkit-attached");
  }

  set text(text) {
    this.root.replaceChildren(...linked(text));
    this.resize(this.node.size[1]);
    this.shown = this.attach();
  }

  // The classic rendering asks before it draws the element, at the node's width less its margins.
  get neededHeight() {
    const probe = this.root.cloneNode(true);
    probe.style.cssText = `position: fixed; visibility: hidden; height: auto; width: ${this.node.size[0] - 30}px`;
    document.body.append(probe);
    const { height } = probe.getBoundingClientRect();
    probe.remove();
    return Math.ceil(height) + 16; // the widget's own margins
  }

  // The Vue rendering makes a node as high as its content, and knows sizes by a node's id alone: one given to a node of
  // another tab or of a closed subgraph would go to its namesake on the page.
  resize(height) {
    if (window.LiteGraph?.vueNodesMode) return;
    this.node.setSize([this.node.size[0], Math.max(height, this.node.computeSize()[1])]);
    app.canvas.setDirty(true, true);
  }

  remove() {
    this.removed = true;
    this.root.remove();
    if (!this.node.widgets?.includes(this.widget)) return;
    this.node.removeWidget(this.widget);
    const kept = this.node.widgets.indexOf(this.widget); // by a subgraph's node in older front ends
    if (kept >= 0) {
      this.widget.onRemove?.();
      this.node.widgets.splice(kept, 1);
    }
    this.resize(this.height);
  }
}

function drawn() {
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
}
