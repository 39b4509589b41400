// PiD Sigma Tuner in the front end. Without this file its two text fields still work.

import { app } from "../../scripts/app.js";
import { addWidget, followNode } from "./elements.js";
import { listen } from "./runs.js";
import { SigmaStrip } from "./sigma_strip.js";

const NODE = "PiDKitSigmaTuner";
const WIDGET = "PIDKIT_SIGMAS";
let definition = {};

app.registerExtension({
  name: "PiDKit.SigmaTuner",

  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return;
    const { sigmas, pictures } = nodeData.input.required;
    sigmas[1].widgetType = WIDGET;
    const { painted } = nodeData.input.optional;
    definition = { sigmas: sigmas[1], pictures: pictures[1], painted: painted[1] };
    pictures[1].hidden = painted[1].hidden = true;
  },

  getCustomWidgets() {
    return {
      [WIDGET](node, name) {
        const strip = new SigmaStrip(node, definition);
        const widget = addWidget(node, name, WIDGET, strip.root, strip.list, {
          getValue: () => strip.value,
          setValue: (value) => {
            strip.value = value;
          },
          getMinHeight: () => strip.minHeight,
          socketless: true,
        });
        widget.strip = strip;

        let deaf;
        const added = () => {
          deaf = listen(() => strip.refresh());
          queueMicrotask(() => strip.refresh());
        };
        followNode(node, strip.root, added, () => deaf?.());
        return { widget, minWidth: 440, minHeight: 460 };
      },
    };
  },
});
