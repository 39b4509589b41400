// Small helpers to build our widgets from plain DOM elements.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const link = document.createElement("link");
link.rel = "stylesheet";
link.href = new URL("./pidkit.css", import.meta.url).href;
document.head.append(link);

// <tag ...properties>children</tag>; a property with a dash is an attribute.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

export function button(text, hint, onclick) {
  return element("button", { type: "button", textContent: text, title: hint, onclick });
}

// A text's parts, with its web addresses as links. A stop or bracket at an address's end is the sentence's.
export function linked(text) {
  return text.split(/(https?:\/\/[^\s<>"]*[^\s<>".,;:!?)\]}'])/).map((part, i) => {
    const isAddress = i % 2 === 1;
    return isAddress
      ? element("a", { href: part, target: "_blank", rel: "noopener noreferrer", textContent: part })
      : part;
  });
}

// An image file of ComfyUI's, as /view knows it.
export function pictureUrl(file) {
  return api.apiURL(`/view?${new URLSearchParams(file)}`);
}

// Puts an element into a node. list: the part of it that scrolls. options: those of addDOMWidget.
export function addWidget(node, name, type, root, list, options) {
  root.classList.add("pidkit");
  root.setAttribute("data-capture-wheel", "true");
  passWheel(root, list);
  const widget = node.addDOMWidget(name, type, root, { hideOnZoom: false, ...options });
  // ComfyUI's side panel sets the width of whatever it shows to its own.
  Object.defineProperty(widget, "width", { get: () => undefined, set() {} });
  return widget;
}

// Calls added and removed with the node's coming and going. Undo builds every node anew, but the Vue rendering goes on
// showing the elements of the node that had the same id before: the new one's take their place.
export function followNode(node, root, added, removed) {
  const { onAdded, onRemoved } = node;
  node.onAdded = function (graph, ...rest) {
    onAdded?.call(this, graph, ...rest);
    root.dataset.pidkitNode = `${graph.id}:${node.id}`;
    requestAnimationFrame(() => {
      const same = document.querySelectorAll(`[data-pidkit-node="${root.dataset.pidkitNode}"]`);
      const old = [...same].find((other) => other !== root);
      if (old && !root.isConnected) old.replaceWith(root);
    });
    added?.();
  };
  node.onRemoved = function (...args) {
    onRemoved?.apply(this, args);
    removed?.();
  };
}

// In the classic rendering the wheel belongs to the canvas, except where the list itself can scroll.
function passWheel(root, list) {
  root.addEventListener(
    "wheel",
    (event) => {
      if (window.LiteGraph?.vueNodesMode) return;
      const room = event.deltaY < 0 ? list.scrollTop : list.scrollHeight - list.clientHeight - list.scrollTop;
      if (event.ctrlKey || room < 1) {
        event.preventDefault();
        app.canvas.processMouseWheel(event);
      }
    },
    { passive: false },
  );
}
