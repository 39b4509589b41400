// Two pictures, one over the other, with a line to drag between them and a zoom that both follow.

import { button, element } from "./elements.js";
import { word } from "./words.js";

const GRIP = 12; // pixels beside the line where a drag moves the line and not the picture
const MOST = 16; // screen pixels per picture pixel
const STEP = 1.25;
const PIXELS = 2; // from this zoom on single pixels are shown, not smoothed over
const TARGETS = [1, 3]; // of the buttons and the double click

export class Compare {
  // brush: to paint with on the picture.
  constructor(brush) {
    this.brush = brush;
    this.choices = [];
    this.chosen = { left: null, right: null }; // keys; null: what is shown by itself
    this.scale = null; // layout pixels per picture pixel; null: the whole picture
    this.centre = [0.5, 0.5];
    this.left = this.side("left");
    this.right = this.side("right");
    this.slider = element("input", {
      type: "range",
      min: 0,
      max: 100,
      value: 50,
      step: "any",
      oninput: () => this.divide(),
    });
    this.stage = element(
      "div",
      { className: "pidkit-stage", onpointerdown: (event) => this.grab(event), ondblclick: (event) => this.next(event) },
      this.left.layer,
      this.right.layer,
      brush.canvas,
      brush.ring,
      this.left.tag,
      this.right.tag,
      this.slider,
    );
    this.zoomed = element("output", { className: "pidkit-zoom" });
    this.zooms = element(
      "div",
      { className: "pidkit-zooms", role: "toolbar" },
      button("−", word("zoomOut"), () => this.zoomBy(1 / STEP)),
      button(word("fit"), word("fitHint"), () => this.fit()),
      ...TARGETS.map((to) => button(`${100 * to} %`, word("zoomHint", 100 * to, to), () => this.zoomTo(to))),
      button("+", word("zoomIn"), () => this.zoomBy(STEP)),
      this.zoomed,
    );
    this.bar = element("div", { className: "pidkit-bar" }, this.left.select, this.zooms, this.right.select);
    this.note = element("p", { className: "pidkit-note" });
    this.root = element("div", { className: "pidkit-compare" }, this.bar, brush.bar, this.stage, this.note);
    this.stage.addEventListener("pointermove", (event) => brush.point(this.at(event)));
    this.stage.addEventListener("pointerleave", () => {
      brush.ring.hidden = true;
    });
    this.root.addEventListener("keydown", (event) => this.onKey(event));
    this.root.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    new ResizeObserver(() => this.place()).observe(this.stage);
    this.hide();
    this.divide();
  }

  side(name) {
    const image = element("img", { alt: "", draggable: false, onload: () => this.place() });
    image.onerror = () => this.label();
    return {
      image,
      layer: element("div", { className: `pidkit-layer pidkit-layer-${name}` }, image),
      tag: element("span", { className: `pidkit-tag pidkit-${name}` }),
      select: element("select", {
        onchange: (event) => {
          this.chosen[name] = event.target.value;
          this.draw();
        },
      }),
    };
  }

  divide() {
    this.stage.style.setProperty("--pidkit-at", `${this.slider.value}%`);
  }

  // ------------------------------------------------------------------------------------------- what is shown

  // number: of the picture, counted from 1. choices: [{key, label, url}], the picture itself first. usual: key of the
  // one beside it by itself. Without any but the first a line says what to do.
  show(number, choices, usual) {
    this.root.hidden = false;
    this.choices = choices;
    this.usual = { left: choices[0].key, right: usual };
    this.stage.hidden = this.bar.hidden = choices.length < 2 && !this.brush.on;
    this.stage.classList.toggle("pidkit-painting", this.brush.on);
    this.note.hidden = !this.stage.hidden;
    this.note.textContent = word("noResult", number);
    this.slider.setAttribute("aria-label", word("compare"));
    this.left.select.setAttribute("aria-label", word("leftSide"));
    this.right.select.setAttribute("aria-label", word("rightSide"));
    if (!this.stage.hidden) this.draw();
  }

  hide() {
    this.root.hidden = this.stage.hidden = true;
  }

  // What a side shows: what was chosen for it, while that is there.
  choice(name) {
    const of = (key) => this.choices.find((choice) => choice.key === key);
    return of(this.chosen[name]) ?? of(this.usual[name]) ?? this.choices[0];
  }

  draw() {
    for (const name of ["left", "right"]) {
      const { image, select } = this[name];
      const { key, url } = this.choice(name);
      const offered = JSON.stringify(this.choices);
      if (select.dataset.offered !== offered) {
        select.dataset.offered = offered;
        select.replaceChildren(...this.choices.map((one) => element("option", { value: one.key, textContent: one.label })));
      }
      select.value = key;
      if (image.getAttribute("src") !== url) image.src = url;
    }
    this.label();
    this.place();
  }

  label() {
    for (const name of ["left", "right"]) {
      const { image, tag } = this[name];
      const gone = image.complete && image.getAttribute("src") && !image.naturalWidth;
      tag.textContent = gone ? word("gone", this.choice(name).label) : this.choice(name).label;
    }
  }

  // ------------------------------------------------------------------------------------------- zoom

  // Of the larger picture: both fill the same frame.
  get size() {
    const [left, right] = [this.left.image, this.right.image];
    const { naturalWidth, naturalHeight } = right.naturalWidth >= left.naturalWidth ? right : left;
    return [naturalWidth, naturalHeight];
  }

  // Screen pixels per layout pixel: the canvas is zoomed too.
  get screen() {
    const drawn = this.stage.getBoundingClientRect().width / this.stage.offsetWidth;
    return (drawn || 1) * window.devicePixelRatio;
  }

  get whole() {
    const [width, height] = this.size;
    return Math.min(this.stage.clientWidth / width, this.stage.clientHeight / height);
  }

  // Where an event happened, in layout pixels of the stage.
  at({ clientX, clientY }) {
    const box = this.stage.getBoundingClientRect();
    const drawn = box.width / this.stage.offsetWidth || 1;
    return [(clientX - box.x) / drawn, (clientY - box.y) / drawn];
  }

  fit() {
    this.scale = null;
    this.place();
  }

  // zoom: screen pixels per picture pixel. at: the point of the stage that stays where it is.
  zoomTo(zoom, at) {
    this.resize(zoom / this.screen, at);
  }

  zoomBy(factor, at) {
    this.resize((this.scale ?? this.whole) * factor, at);
  }

  resize(scale, at = [this.stage.clientWidth / 2, this.stage.clientHeight / 2]) {
    const old = this.scale ?? this.whole;
    const least = Math.min(this.whole, 1 / this.screen);
    const now = Math.max(least, Math.min(scale, Math.max(MOST / this.screen, this.whole)));
    this.scale = now;
    const from = [this.stage.clientWidth / 2, this.stage.clientHeight / 2];
    this.centre = this.centre.map((middle, i) => middle + ((at[i] - from[i]) * (1 / old - 1 / now)) / this.size[i]);
    this.place();
  }

  // The double click: closer, closer still, the whole picture.
  next(event) {
    if (event.target !== this.stage || this.brush.on) return;
    const zoom = (this.scale ?? this.whole) * this.screen;
    const closer = TARGETS.find((to) => this.whole * this.screen < to && zoom < to * 0.99);
    if (closer) this.zoomTo(closer, this.at(event));
    else this.fit();
  }

  move(x, y) {
    const scale = this.scale ?? this.whole;
    const [width, height] = this.size;
    this.centre = [this.centre[0] - x / scale / width, this.centre[1] - y / scale / height];
    this.place();
  }

  place() {
    const { clientWidth, clientHeight } = this.stage;
    const [width, height] = this.size;
    if (!width || !clientWidth) return;
    const scale = this.scale ?? this.whole;
    const box = [width * scale, height * scale];
    const corner = [clientWidth, clientHeight].map((room, i) => {
      if (box[i] <= room) this.centre[i] = 0.5;
      const first = room / 2 - this.centre[i] * box[i];
      const kept = box[i] <= room ? first : Math.min(0, Math.max(room - box[i], first));
      this.centre[i] = (room / 2 - kept) / box[i];
      return kept;
    });
    const zoom = scale * this.screen;
    for (const { image } of [this.left, this.right]) {
      Object.assign(image.style, {
        left: `${corner[0]}px`,
        top: `${corner[1]}px`,
        width: `${box[0]}px`,
        height: `${box[1]}px`,
        imageRendering: zoom >= PIXELS && image.naturalWidth === width ? "pixelated" : "auto",
      });
    }
    this.brush.place(corner, box);
    this.stage.classList.toggle("pidkit-zoomed", this.scale !== null);
    this.zoomed.textContent = `${Math.round(zoom * 100)} %`;
  }

  // ------------------------------------------------------------------------------------------- by hand

  // A drag paints with the brush, else it moves the line; in a zoomed picture only near the line, and elsewhere the
  // picture.
  grab(event) {
    if (event.button !== 0) return;
    event.stopPropagation();
    event.preventDefault();
    this.slider.focus({ preventScroll: true });
    const [x] = this.at(event);
    const line = (Number(this.slider.value) / 100) * this.stage.clientWidth;
    const { brush } = this;
    const moves = this.scale !== null && Math.abs(x - line) > GRIP && !brush.on;
    let last = this.at(event);
    const drag = (moved) => {
      const now = this.at(moved);
      if (brush.on) brush.to(now);
      else if (moves) this.move(now[0] - last[0], now[1] - last[1]);
      else this.slide((100 * now[0]) / this.stage.clientWidth);
      last = now;
    };
    const end = () => {
      this.stage.removeEventListener("pointermove", drag);
      brush.end();
      this.stage.classList.remove("pidkit-moving");
    };
    this.stage.setPointerCapture(event.pointerId);
    this.stage.addEventListener("pointermove", drag);
    this.stage.addEventListener("pointerup", end, { once: true });
    this.stage.addEventListener("pointercancel", end, { once: true });
    if (brush.on) brush.begin(last);
    else if (moves) this.stage.classList.add("pidkit-moving");
    else drag(event);
  }

  slide(percent) {
    this.slider.value = percent;
    this.divide();
  }

  // As everywhere in ComfyUI the wheel is the canvas's until the picture has been clicked.
  onWheel(event) {
    const canvas = this.root.closest(".lg-node, .dom-widget");
    const ours = this.stage.contains(event.target) && (!canvas || this.root.contains(document.activeElement));
    if (!ours) return;
    event.preventDefault();
    event.stopPropagation();
    this.zoomBy(Math.exp(-Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 100) * 0.003), this.at(event));
  }

  onKey(event) {
    if (event.target !== this.slider || event.ctrlKey || event.metaKey || event.altKey) return;
    const far = [this.stage.clientWidth / 10, this.stage.clientHeight / 10];
    const actions = {
      "+": () => this.zoomBy(STEP),
      "-": () => this.zoomBy(1 / STEP),
      0: () => this.fit(),
      1: () => this.zoomTo(1),
      3: () => this.zoomTo(3),
    };
    const moves = {
      ArrowLeft: [far[0], 0],
      ArrowRight: [-far[0], 0],
      ArrowUp: [0, far[1]],
      ArrowDown: [0, -far[1]],
    };
    if (this.brush.onKey(event.key)) {
      // its own
    } else if (event.shiftKey && moves[event.key]) this.move(...moves[event.key]);
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
