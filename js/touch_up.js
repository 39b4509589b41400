// PiD Touch Up in the front end: its variations as tiles; a click keeps one.

import { app } from "../../scripts/app.js";
import { Tiles, addTiles } from "./tiles.js";
import { word } from "./words.js";

const NODE = "PiDKitTouchUp";

class Variations extends Tiles {
  get keep() {
    return this.node.widgets.find((widget) => widget.name === "keep");
  }

  // found: {pidkit_tiles, pidkit_keep}.
  show({ pidkit_tiles: tiles, pidkit_keep: [kept] }) {
    this.fill(
      tiles.map(({ seed, image }, i) => ({
        image,
        label: `${i + 1} · ${word("seed", seed)}`,
        hint: word("keepHint", i + 1),
        chosen: i + 1 === kept,
        take: (tile) => this.take(tile, i + 1),
      })),
      "auto-fit",
    );
    this.line.textContent = "";
  }

  take(tile, number) {
    this.keep.value = number;
    this.keep.callback?.(number);
    app.canvas.setDirty(true, true);
    this.choose(tile, word("kept", number));
  }
}

app.registerExtension({
  name: "PiDKit.TouchUp",

  nodeCreated(node) {
    if (node.comfyClass === NODE) addTiles(new Variations(node), 440, 560);
  },
});
