// Nodes 2.0 folds rare inputs away behind a button of its own. The classic rendering shows them all: here it folds ours
// too, by the same mark of the node (showAdvanced), so that a workflow opens alike in both.

import { app } from "../../scripts/app.js";
import { word } from "./words.js";

const PREFIX = "PiDKit";
const NOWHERE = -1e5; // where the socket of a folded input is, so that no wire falls on it

function foldable() {
  const shownAlways = app.extensionManager?.setting?.get("Comfy.Node.AlwaysShowAdvancedWidgets");
  return !window.LiteGraph?.vueNodesMode && !shownAlways;
}

// Makes widget.hidden true while isHidden() is.
function hideWhile(widget, isHidden) {
  let asked = widget.hidden ?? false;
  Object.defineProperty(widget, "hidden", {
    configurable: true,
    enumerable: true,
    get: () => asked || isHidden(),
    set: (value) => {
      asked = value;
    },
  });
}

function addButton(node, changed) {
  const button = node.addWidget("button", "advanced_inputs", null, changed, { serialize: false, canvasOnly: true });
  button.serialize = false;
  Object.defineProperty(button, "label", {
    configurable: true,
    get: () => word(node.showAdvanced ? "hideAdvanced" : "showAdvanced"),
    set() {},
  });
  hideWhile(button, () => !foldable());
}

app.registerExtension({
  name: "PiDKit.AdvancedInputs",

  nodeCreated(node) {
    if (!node.comfyClass?.startsWith(PREFIX)) return;
    const marked = (node.widgets ?? []).filter((widget) => widget.options?.advanced);
    // a seed brings "control after generate", which has no mark of its own
    const rare = [...new Set(marked.flatMap((widget) => [widget, ...(widget.linkedWidgets ?? [])]))];
    if (rare.length < 2) return; // a button in the place of one input would save nothing

    const folded = (widget) => foldable() && !node.showAdvanced && node.getSlotFromWidget(widget)?.link == null;
    // Runs a change of what is shown; the node keeps the room it has beside that.
    const resized = (change) => {
      const before = node.computeSize()[1];
      change();
      for (const widget of rare) if (folded(widget)) widget.y = NOWHERE;
      node.setSize([node.size[0], node.size[1] + node.computeSize()[1] - before]);
      node.graph?.setDirtyCanvas(true, true);
    };
    resized(() => {
      for (const widget of rare) hideWhile(widget, () => folded(widget));
      addButton(node, () =>
        resized(() => {
          node.showAdvanced = !node.showAdvanced;
        }),
      );
    });
  },
});
