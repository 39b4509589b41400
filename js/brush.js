// A brush for degrade_sigma on the enlarged picture: a grid of cells over it, that the workflow keeps as text.

import { button, element } from "./elements.js";
import { word } from "./words.js";

const NONE = -1; // a cell without paint; others are hundredths of degrade_sigma
const COLOURS = [[20, 100, 230], [40, 190, 110], [255, 215, 50]]; // at 0, a half and 1
const OPACITY = 175; // of 255
const SIZES = [1, 3, 40]; // of the brush in hundredths of the picture's longer side: least, step, most

// Of a value from 0 to 1, as on PiD Sigma Map: from blue over green to yellow.
function colour(value) {
  const place = 2 * value;
  const [from, to] = place < 1 ? COLOURS : COLOURS.slice(1);
  return [...from.map((part, i) => part + (to[i] - part) * (place < 1 ? place : place - 1)), OPACITY];
}

// "64x48:120.5@40.2947" -> {width, height, cells}; undefined where it is none. pid_core/images/paint.py reads the same.
function decode(text) {
  const [, width, height, runs] = /^(\d+)x(\d+):([\d.@]*)$/.exec(text) ?? [];
  const cells = (runs ?? "").split(".").flatMap((run) => {
    const [count, value] = run.split("@");
    return Array(Number(count)).fill(value === undefined ? NONE : Number(value));
  });
  return cells.length === width * height ? { width: Number(width), height: Number(height), cells } : undefined;
}

function encode({ width, height, cells }) {
  const runs = [];
  for (const value of cells) {
    const last = runs.at(-1);
    if (last?.value === value) last.count += 1;
    else runs.push({ value, count: 1 });
  }
  return `${width}x${height}:${runs.map(({ value, count }) => (value === NONE ? count : `${count}@${value}`)).join(".")}`;
}

// The text of all pictures: id -> text of one.
export function paintOf(text) {
  return new Map(
    String(text ?? "")
      .split(";")
      .map((part) => part.split("="))
      .filter(([id, grid]) => id && grid),
  );
}

export function textOf(paint) {
  return [...paint].map(([id, grid]) => `${id}=${grid}`).join(";");
}

export class Brush {
  // longest: cells along a picture's longer side. changed(text): what is painted on the shown picture now, "" nothing.
  constructor(longest, changed) {
    this.longest = longest;
    this.changed = changed;
    this.on = this.erases = false;
    this.canvas = element("canvas", { className: "pidkit-paint" });
    this.ring = element("div", { className: "pidkit-ring", hidden: true });
    this.size = this.range(word("brushSize"), { min: SIZES[0], max: SIZES[2], step: 1, value: 8 });
    this.strength = this.range(word("brushStrength"), { min: 0, max: 1, step: 0.01, value: 0.4 });
    this.eraser = button(word("erase"), word("eraseHint"), () => this.erase(!this.erases));
    this.eraser.setAttribute("aria-pressed", "false");
    this.shown = element("output", { className: "pidkit-value" });
    this.bar = element(
      "div",
      { className: "pidkit-bar pidkit-brush", hidden: true },
      element("label", { textContent: word("brushSize") }, this.size),
      element("label", { textContent: word("brushStrength") }, this.strength, this.shown),
      this.eraser,
      button(word("clear"), word("clearHint"), () => this.clear()),
    );
    this.say();
  }

  range(label, properties) {
    return element("input", { type: "range", "aria-label": label, oninput: () => this.say(), ...properties });
  }

  say() {
    this.shown.textContent = Number(this.strength.value).toFixed(2);
  }

  turn(on) {
    this.on = on;
    this.bar.hidden = !on;
    this.ring.hidden = true;
  }

  erase(erases) {
    this.erases = erases;
    this.eraser.setAttribute("aria-pressed", String(erases));
  }

  // Shows what is painted on a picture of this shape (width over height).
  load(text, aspect) {
    if (this.drawing) return;
    const [width, height] = aspect >= 1 ? [1, 1 / aspect] : [aspect, 1];
    const sides = [width, height].map((side) => Math.max(1, Math.round(side * this.longest)));
    const grid = decode(text ?? "");
    this.grid = grid ?? { width: sides[0], height: sides[1], cells: Array(sides[0] * sides[1]).fill(NONE) };
    this.draw();
  }

  draw() {
    const { width, height, cells } = this.grid;
    Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    cells.forEach((value, i) => {
      if (value === NONE) return;
      pixels.data.set(colour(value / 100), 4 * i);
    });
    context.putImageData(pixels, 0, 0);
  }

  // The picture's corner and box in layout pixels of the stage.
  place(corner, box) {
    this.box = box;
    this.corner = corner;
    Object.assign(this.canvas.style, {
      left: `${corner[0]}px`,
      top: `${corner[1]}px`,
      width: `${box[0]}px`,
      height: `${box[1]}px`,
    });
  }

  // Of the brush, in layout pixels.
  get radius() {
    return (Math.max(...this.box) * this.size.value) / 200;
  }

  point([x, y]) {
    if (!this.box) return;
    const { radius } = this;
    Object.assign(this.ring.style, {
      left: `${x - radius}px`,
      top: `${y - radius}px`,
      width: `${2 * radius}px`,
      height: `${2 * radius}px`,
    });
    this.ring.hidden = !this.on;
  }

  begin(at) {
    this.drawing = true;
    this.last = at;
    this.to(at);
  }

  // A stroke to this point of the stage, from where the last ended.
  to(at) {
    const far = Math.hypot(at[0] - this.last[0], at[1] - this.last[1]);
    const count = Math.max(1, Math.ceil(far / Math.max(1, this.radius / 2)));
    for (let i = 1; i <= count; i += 1) {
      this.dab(this.last.map((from, k) => from + ((at[k] - from) * i) / count));
    }
    this.last = at;
    this.draw();
  }

  dab(at) {
    const { width, height, cells } = this.grid;
    const cell = this.box[0] / width;
    const [x, y] = at.map((place, k) => (place - this.corner[k]) / cell);
    const radius = Math.max(this.radius / cell, 0.71); // at least the cell that is pointed at
    const value = this.erases ? NONE : Math.round(100 * this.strength.value);
    for (let row = Math.max(0, Math.floor(y - radius)); row < Math.min(height, y + radius + 1); row += 1) {
      for (let column = Math.max(0, Math.floor(x - radius)); column < Math.min(width, x + radius + 1); column += 1) {
        if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= radius) cells[row * width + column] = value;
      }
    }
  }

  end() {
    if (!this.drawing) return;
    this.drawing = false;
    this.tell();
  }

  clear() {
    this.grid.cells.fill(NONE);
    this.draw();
    this.tell();
  }

  tell() {
    this.changed(this.grid.cells.some((value) => value !== NONE) ? encode(this.grid) : "");
  }

  // Whether a key was the brush's.
  onKey(key) {
    if (!this.on) return false;
    const actions = {
      "[": () => this.resize(-SIZES[1]),
      "]": () => this.resize(SIZES[1]),
      e: () => this.erase(!this.erases),
    };
    actions[key]?.();
    return key in actions;
  }

  resize(by) {
    this.size.value = Number(this.size.value) + by;
    if (this.last) this.point(this.last);
  }
}
