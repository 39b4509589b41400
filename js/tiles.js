// Results of a run side by side on their node, one of which a click takes: PiD Sigma Sweep's and PiD Touch Up's.

import { addWidget, element, followNode, pictureUrl } from "./elements.js";
import { listen, tilesOf } from "./runs.js";
import { word } from "./words.js";

export class Tiles {
  constructor(node) {
    this.node = node;
    this.list = element("div", { className: "pidkit-tiles pidkit-none" });
    this.list.dataset.empty = word("noTiles");
    this.line = element("p", { className: "pidkit-note", role: "status" });
    this.root = element("div", { className: "pidkit-sweep" }, this.list, this.line);
  }

  // Shows what the last run brought, if it is new.
  draw() {
    const found = tilesOf(this.node);
    if (!found || found === this.shown) return;
    this.shown = found;
    this.show(found);
  }

  // tiles: [{image, label, hint, chosen, take}], take called with its element. columns: their number, or "auto-fit".
  fill(tiles, columns) {
    this.list.style.setProperty("--pidkit-columns", columns);
    this.list.classList.toggle("pidkit-none", tiles.length === 0);
    this.list.replaceChildren(
      ...tiles.map(({ image, label, hint, chosen, take }) =>
        element(
          "button",
          {
            type: "button",
            className: "pidkit-tile",
            title: hint,
            "aria-pressed": String(chosen),
            onclick: (event) => take(event.currentTarget),
          },
          element("img", { src: pictureUrl(image), alt: label, draggable: false, decoding: "async" }),
          element("span", { textContent: label }),
        ),
      ),
    );
  }

  choose(tile, line) {
    for (const other of this.list.children) other.setAttribute("aria-pressed", String(other === tile));
    this.line.textContent = line;
  }
}

// Puts them into their node, where they follow its runs.
export function addTiles(tiles, width, height) {
  const { node, root, list } = tiles;
  const widget = addWidget(node, "results", "PIDKIT_TILES", root, list, { serialize: false, getMinHeight: () => 190 });
  widget.serialize = false;
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);

  let deaf;
  const added = () => {
    deaf = listen(() => tiles.draw());
    queueMicrotask(() => tiles.draw());
  };
  followNode(node, root, added, () => deaf?.());
}
