// PiD Sigma Sweep in the front end: its results as tiles; a click sets the picture's value in PiD Sigma Tuner, or what
// is inside the mask of PiD Sigma Map.

import { app } from "../../scripts/app.js";
import { addWidget, element, followNode, pictureUrl } from "./elements.js";
import { nodeBefore } from "./graph.js";
import { listen, sweptBy } from "./runs.js";
import { word } from "./words.js";

const NODE = "PiDKitSigmaSweep";

class Tiles {
  constructor(node) {
    this.node = node;
    this.list = element("div", { className: "pidkit-tiles pidkit-none" });
    this.list.dataset.empty = word("noTiles");
    this.line = element("p", { className: "pidkit-note", role: "status" });
    this.root = element("div", { className: "pidkit-sweep" }, this.list, this.line);
  }

  // What a click sets, or undefined: {count, value(picture), set(picture, sigma)}, pictures counted from 0.
  get target() {
    const widgets = nodeBefore(this.node, "sigma_list")?.widgets ?? [];
    const strip = widgets.find((widget) => widget.name === "sigmas")?.strip;
    if (strip) {
      const set = (picture, sigma) => strip.setSigma(picture, sigma);
      return { count: strip.sigmas.length, value: (picture) => strip.sigmas[picture], set };
    }
    const inside = widgets.find((widget) => widget.name === "sigma_inside");
    const set = (picture, sigma) => {
      inside.value = sigma;
      inside.callback?.(sigma);
      app.canvas.setDirty(true, true);
    };
    return inside && { count: Infinity, value: () => inside.value, set };
  }

  // Shows what the last run brought, if it is new.
  draw() {
    const found = sweptBy(this.node);
    if (!found || found === this.shown) return;
    this.shown = found;
    this.show(found);
  }

  // found: {pidkit_tiles, pidkit_picture, pidkit_columns}.
  show({ pidkit_tiles: tiles, pidkit_picture: [picture], pidkit_columns: [columns] }) {
    const severalSeeds = columns < tiles.length;
    // a row of one seed may go on in the next line; with several each seed is a row
    this.list.style.setProperty("--pidkit-columns", severalSeeds ? columns : "auto-fit");
    this.list.classList.toggle("pidkit-none", tiles.length === 0);
    this.list.replaceChildren(
      ...tiles.map(({ sigma, seed, image }) => {
        const label = severalSeeds ? `${sigma} · ${word("seed", seed)}` : `${sigma}`;
        return element(
          "button",
          {
            type: "button",
            className: "pidkit-tile",
            title: word("tileHint", picture, sigma),
            "aria-pressed": String(this.target?.value(picture - 1) === sigma),
            onclick: (event) => this.take(event.currentTarget, picture, sigma),
          },
          element("img", { src: pictureUrl(image), alt: label, draggable: false, decoding: "async" }),
          element("span", { textContent: label }),
        );
      }),
    );
    this.line.textContent = this.target ? "" : word("noTuner");
  }

  take(tile, picture, sigma) {
    const { target } = this;
    if (!target) this.line.textContent = word("noTuner");
    else if (picture > target.count) this.line.textContent = word("notLoaded", picture);
    else {
      target.set(picture - 1, sigma);
      for (const other of this.list.children) other.setAttribute("aria-pressed", String(other === tile));
      this.line.textContent = word("taken", picture, sigma);
    }
  }
}

app.registerExtension({
  name: "PiDKit.SigmaSweep",

  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const tiles = new Tiles(node);
    const options = { serialize: false, getMinHeight: () => 190 };
    const widget = addWidget(node, "results", "PIDKIT_TILES", tiles.root, tiles.list, options);
    widget.serialize = false;
    node.setSize([Math.max(node.size[0], 440), Math.max(node.size[1], 460)]);

    let deaf;
    const added = () => {
      deaf = listen(() => tiles.draw());
      queueMicrotask(() => tiles.draw());
    };
    followNode(node, tiles.root, added, () => deaf?.());
  },
});
