// Before and after: one picture over the other, with a slider between them.

import { element } from "./elements.js";
import { word } from "./words.js";

export class Compare {
  constructor() {
    this.before = element("img", { alt: "", draggable: false });
    this.after = element("img", { alt: "", draggable: false, className: "pidkit-after" });
    this.slider = element("input", {
      type: "range",
      min: 0,
      max: 100,
      value: 50,
      oninput: () => this.divide(),
    });
    this.stage = element(
      "div",
      { className: "pidkit-stage" },
      this.before,
      this.after,
      element("span", { className: "pidkit-tag pidkit-left" }),
      element("span", { className: "pidkit-tag pidkit-right" }),
      this.slider,
    );
    this.note = element("p", { className: "pidkit-note" });
    this.root = element("div", { className: "pidkit-compare" }, this.stage, this.note);
    this.hide();
    this.divide();
  }

  divide() {
    this.stage.style.setProperty("--pidkit-at", `${this.slider.value}%`);
  }

  // number: counted from 1. before, after: addresses of pictures; without after a line says what to do.
  show(number, before, after) {
    this.root.hidden = false;
    this.stage.hidden = !after;
    this.note.hidden = Boolean(after);
    this.note.textContent = word("noResult", number);
    this.slider.setAttribute("aria-label", word("compare"));
    const [left, right] = this.stage.querySelectorAll(".pidkit-tag");
    left.textContent = word("before");
    right.textContent = `${word("after")} · ${number}`;
    if (!after) return;
    if (this.before.src !== before) this.before.src = before;
    if (this.after.src !== after) this.after.src = after;
  }

  hide() {
    this.root.hidden = this.stage.hidden = true;
  }
}
