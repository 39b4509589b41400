// PiD Sigma Sweep in the front end: its results as tiles; a click sets the picture's value in PiD Sigma Tuner, or what
// is inside the mask of PiD Sigma Map.

import { app } from "../../scripts/app.js";
import { nodeBefore } from "./graph.js";
import { Tiles, addTiles } from "./tiles.js";
import { word } from "./words.js";

const NODE = "PiDKitSigmaSweep";

class Sweep extends Tiles {
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

  // found: {pidkit_tiles, pidkit_picture, pidkit_columns}.
  show({ pidkit_tiles: tiles, pidkit_picture: [picture], pidkit_columns: [columns] }) {
    const severalSeeds = columns < tiles.length;
    this.fill(
      tiles.map(({ sigma, seed, image }) => ({
        image,
        label: severalSeeds ? `${sigma} · ${word("seed", seed)}` : `${sigma}`,
        hint: word("tileHint", picture, sigma),
        chosen: this.target?.value(picture - 1) === sigma,
        take: (tile) => this.take(tile, picture, sigma),
      })),
      // a row of one seed may go on in the next line; with several each seed is a row
      severalSeeds ? columns : "auto-fit",
    );
    this.line.textContent = this.target ? "" : word("noTuner");
  }

  take(tile, picture, sigma) {
    const { target } = this;
    if (!target) this.line.textContent = word("noTuner");
    else if (picture > target.count) this.line.textContent = word("notLoaded", picture);
    else {
      target.set(picture - 1, sigma);
      this.choose(tile, word("taken", picture, sigma));
    }
  }
}

app.registerExtension({
  name: "PiDKit.SigmaSweep",

  nodeCreated(node) {
    if (node.comfyClass === NODE) addTiles(new Sweep(node), 440, 460);
  },
});
