// PiD Sigma Tuner in the front end. Without this file its two text fields still work.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addWidget, followNode } from "./elements.js";
import { SigmaStrip } from "./sigma_strip.js";

const NODE = "PiDKitSigmaTuner";
const WIDGET = "PIDKIT_SIGMAS";
const strips = new Set();

app.registerExtension({
  name: "PiDKit.SigmaTuner",

  setup() {
    // A result may come long after the tuner itself has run.
    api.addEventListener("executed", () => strips.forEach((strip) => strip.drawCompare()));
  },

  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return;
    const { sigmas, pictures } = nodeData.input.required;
    sigmas[1].widgetType = WIDGET;
    pictures[1].hidden = true;
  },

  getCustomWidgets() {
    return {
      [WIDGET](node, name) {
        const strip = new SigmaStrip(node);
        const widget = addWidget(node, name, WIDGET, strip.root, strip.list, {
          getValue: () => strip.value,
          setValue: (value) => {
            strip.value = value;
          },
          getMinHeight: () => strip.minHeight,
          socketless: true,
        });
        widget.strip = strip;

        followNode(
          node,
          strip.root,
          () => strips.add(strip),
          () => strips.delete(strip),
        );
        const { onExecuted } = node;
        node.onExecuted = function (output) {
          onExecuted?.call(this, output);
          if (output?.pidkit_pictures) strip.received(output.pidkit_pictures);
        };
        return { widget, minWidth: 440, minHeight: 460 };
      },
    };
  },
});
