// The strip of PiD Sigma Tuner: a picture, a slider and a suggestion per image of the batch.

import { app } from "../../scripts/app.js";
import { Brush, paintOf, textOf } from "./brush.js";
import { Compare } from "./compare.js";
import { button, element, pictureUrl } from "./elements.js";
import { executionIds } from "./graph.js";
import { collect, pictureOf, resultsOf } from "./runs.js";
import { word } from "./words.js";

// Results as they are offered: named by their strength, and by what else tells them apart.
function labelled(results) {
  const differ = (name) => new Set(results.map((result) => String(result[name]))).size > 1;
  const seeds = differ("seed");
  const steps = differ("steps");
  return results.map(({ key, sigma, seed, steps: count, sweep, file: made }) => {
    const parts = [word("strength", Number(sigma).toFixed(2))];
    if (seeds && seed !== undefined) parts.push(word("seed", seed));
    if (steps && count !== undefined) parts.push(word("steps", count));
    if (sweep) parts.push(word("fromSweep"));
    return { key, label: parts.join(" · "), url: pictureUrl(made) };
  });
}

function rounded(value) {
  const number = Number(value);
  return Number.isFinite(number) ? Math.round(Math.min(1, Math.max(0, number)) * 100) / 100 : 0;
}

function listOf(value, pattern) {
  return Array.isArray(value) ? [...value] : (String(value ?? "").match(pattern) ?? []);
}

export class SigmaStrip {
  // sigmas, pictures, painted: what the node's definition says of these inputs.
  constructor(node, { sigmas, pictures, painted }) {
    this.node = node;
    this.presets = Object.entries(sigmas.presets);
    this.trained = sigmas.trained;
    this.files = pictures.files;
    this.idPattern = new RegExp(`[0-9a-f]{${pictures.id_length}}`, "g");
    this.sigmas = [];
    this.cards = [];
    this.chosen = 0;
    this.grown = false; // by the comparison
    this.brush = new Brush(painted.longest, (text) => this.paint(text));
    this.compare = new Compare(this.brush);
    this.list = element("div", { className: "pidkit-list", role: "list" });
    this.tools = element("div", { className: "pidkit-tools", role: "toolbar" });
    this.root = element("div", { className: "pidkit-tuner" }, this.tools, this.list, this.compare.root);
    this.root.addEventListener("keydown", (event) => this.onKey(event));
    this.drawTools();
    this.draw();
  }

  // The widget's value: a plain list of numbers; without pictures empty, as the node has it by itself.
  get value() {
    return this.sigmas.length ? [...this.sigmas] : "";
  }

  set value(value) {
    this.sigmas = listOf(value, /[\d.]+/g).map(rounded);
    this.drawSoon();
  }

  // Ids of the pictures the values belong to: the value of the hidden widget beside this one.
  get ids() {
    return listOf(this.widget("pictures")?.value, this.idPattern);
  }

  // By the name that the server gives it, a workflow opened again finds its pictures while they exist.
  fileOf(id, kind) {
    const { filename, ...place } = this.files[kind];
    return pictureOf(id)?.[kind] ?? { filename: filename.replace("{id}", id), ...place };
  }

  widget(name) {
    return this.node.widgets?.find((widget) => widget.name === name);
  }

  get defaultSigma() {
    return rounded(this.widget("default_sigma")?.value);
  }

  // ------------------------------------------------------------------------------------------- changes

  // One step for undo.
  change(action) {
    app.canvas.emitBeforeChange();
    action();
    app.canvas.emitAfterChange();
  }

  setSigma(index, value) {
    this.choose(index);
    this.change(() => this.write(index, value));
  }

  write(index, value) {
    this.sigmas[index] = rounded(value);
    this.update(index);
  }

  writeAll(value) {
    this.change(() => {
      this.sigmas = this.sigmas.map(() => rounded(value));
      this.cards.forEach((_, i) => this.update(i));
    });
  }

  // What is painted on the chosen picture now.
  paint(text) {
    this.change(() => {
      const paint = paintOf(this.widget("painted").value);
      paint.delete(this.cards[this.chosen].id);
      if (text) paint.set(this.cards[this.chosen].id, text);
      this.widget("painted").value = textOf(paint);
    });
    this.update(this.chosen);
  }

  suggestion(index) {
    return pictureOf(this.ids[index])?.suggestion;
  }

  // Something new is known of a run, perhaps of this node's.
  refresh() {
    if (!this.node.graph) return;
    const found = collect(this.node);
    if (found) this.received(found);
    else this.draw();
  }

  // What the server found in a run: its pictures in their order. Values changed here since then stay.
  received(pictures) {
    const waiting = new Map();
    this.ids.forEach((id, i) => waiting.set(id, [...(waiting.get(id) ?? []), this.sigmas[i]]));
    const sigmas = pictures.map(({ id, sigma }) => waiting.get(id)?.shift() ?? sigma);
    const ids = pictures.map(({ id }) => id);
    const same = ids.join() === this.ids.join() && sigmas.join() === this.sigmas.join();
    if (!same) {
      this.change(() => {
        this.sigmas = sigmas.map(rounded);
        this.widget("pictures").value = ids;
        const paint = paintOf(this.widget("painted").value);
        this.widget("painted").value = textOf([...paint].filter(([id]) => ids.includes(id)));
      });
    }
    this.draw();
  }

  load() {
    app.queuePrompt(0, 1, executionIds(this.node));
  }

  onKey(event) {
    const card = event.target.closest?.(".pidkit-card");
    const typing = event.target.type === "number";
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      const redo = key === "y" || (key === "z" && event.shiftKey);
      // ComfyUI hears these keys itself, except in an <input>
      if ((key !== "z" && key !== "y") || typing || event.target.tagName !== "INPUT") return;
      app.extensionManager.command.execute(redo ? "Comfy.Redo" : "Comfy.Undo");
    } else if (event.key === "Delete" || event.key === "Backspace") {
      // Would remove the node.
      event.stopPropagation();
      return;
    } else if (!card || typing) {
      return;
    } else {
      const index = this.cards.findIndex((one) => one.root === card);
      const value = key === "0" ? this.defaultSigma : this.presets[key - 1]?.[1];
      if (key === "s" && this.suggestion(index) !== undefined) this.setSigma(index, this.suggestion(index));
      else if (key === "=") this.writeAll(this.sigmas[index]);
      else if (value !== undefined) this.setSigma(index, value);
      else return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  // ------------------------------------------------------------------------------------------- drawing

  drawTools() {
    this.painter = button(word("paint"), word("paintHint"), () => this.startPainting(!this.brush.on));
    this.painter.setAttribute("aria-pressed", "false");
    this.tools.append(button(word("load"), word("loadHint"), () => this.load()));
    this.presets.forEach(([name, value], i) => {
      const hint = word("presetHint", value, i + 1);
      this.tools.append(button(`${word(name)} ${value}`, hint, () => this.setSigma(this.chosen, value)));
    });
    this.tools.append(
      button(word("same"), word("sameHint"), () => this.writeAll(this.sigmas[this.chosen])),
      button(word("reset"), word("resetHint"), () => this.writeAll(this.defaultSigma)),
      this.painter,
    );
  }

  startPainting(on) {
    this.brush.turn(on);
    this.painter.setAttribute("aria-pressed", String(on));
    this.drawCompare();
  }

  // Once for both widgets, when a workflow sets one after the other.
  drawSoon() {
    if (this.waiting) return;
    this.waiting = true;
    queueMicrotask(() => {
      this.waiting = false;
      this.draw();
    });
  }

  draw() {
    const { ids } = this;
    const count = Math.min(ids.length, this.sigmas.length);
    this.chosen = Math.min(this.chosen, Math.max(0, count - 1));
    if (ids.slice(0, count).join() !== this.cards.map((card) => card.id).join()) {
      this.cards = ids.slice(0, count).map((id, i) => this.card(id, i));
      this.list.replaceChildren(...this.cards.map((card) => card.root));
    }
    this.list.classList.toggle("pidkit-none", count === 0);
    this.list.dataset.empty = word("empty");
    for (const tool of [...this.tools.children].slice(1)) tool.disabled = count === 0;
    this.cards.forEach((_, i) => this.update(i));
    this.drawCompare();
  }

  card(id, index) {
    const number = index + 1;
    const image = element("img", { alt: word("picture", number), draggable: false, decoding: "async", loading: "lazy" });
    image.onerror = () => image.classList.add("pidkit-gone");
    image.src = pictureUrl(this.fileOf(id, "thumbnail"));
    const card = { id };
    card.thumb = element(
      "button",
      { type: "button", className: "pidkit-thumb", title: word("choose", number), onclick: () => this.choose(index) },
      image,
      element("span", { className: "pidkit-number", textContent: number }),
    );
    card.range = element("input", {
      type: "range",
      min: 0,
      max: 1,
      step: 0.01,
      "aria-label": word("sigma", number),
      oninput: () => this.write(index, card.range.value),
      onchange: () => this.setSigma(index, card.range.value),
      onfocus: () => this.choose(index),
    });
    card.number = element("input", {
      type: "number",
      min: 0,
      max: 1,
      step: 0.01,
      "aria-label": word("sigma", number),
      onchange: () => this.setSigma(index, card.number.value),
      onfocus: () => this.choose(index),
    });
    card.mark = element("span", { className: "pidkit-mark", "aria-hidden": "true" });
    card.take = button("", "", () => this.setSigma(index, this.suggestion(index)));
    card.take.className = "pidkit-take";
    card.root = element(
      "div",
      { className: "pidkit-card", role: "listitem" },
      card.thumb,
      element("div", { className: "pidkit-slider" }, card.range, card.mark),
      element("div", { className: "pidkit-values" }, card.number, card.take),
    );
    return card;
  }

  update(index) {
    const card = this.cards[index];
    if (!card) return;
    const value = this.sigmas[index];
    const suggestion = this.suggestion(index);
    card.range.value = value;
    card.number.value = value.toFixed(2);
    card.root.classList.toggle("pidkit-chosen", index === this.chosen);
    card.root.classList.toggle("pidkit-painted", paintOf(this.widget("painted")?.value).has(card.id));
    card.root.classList.toggle("pidkit-untrained", value > this.trained);
    card.number.title = value > this.trained ? word("untrained", this.trained) : "";
    card.mark.hidden = card.take.hidden = suggestion === undefined;
    if (suggestion !== undefined) {
      card.mark.style.setProperty("--pidkit-at", suggestion);
      card.take.textContent = `≈ ${suggestion.toFixed(2)}`;
      card.take.title = word("suggested", index + 1, suggestion.toFixed(2));
    }
  }

  choose(index) {
    if (index >= this.sigmas.length) return;
    const before = this.chosen;
    this.chosen = index;
    this.update(before);
    this.update(index);
    this.drawCompare();
  }

  drawCompare() {
    const id = this.cards[this.chosen]?.id;
    if (id) {
      const before = { key: "before", label: word("before"), url: pictureUrl(this.fileOf(id, "large")) };
      const results = resultsOf(id);
      this.compare.show(this.chosen + 1, [before, ...labelled(results)], this.usual(results));
      this.showPaint(id);
    } else {
      this.compare.hide();
    }
    if (this.root.classList.toggle("pidkit-comparing", this.comparing) === this.grown) return;
    this.grown = this.comparing;
    if (this.grown) this.node.expandToFitContent?.();
    app.canvas.setDirty(true, true); // what stands below it moves when the canvas is drawn
  }

  // Of the picture with this id, as soon as its shape is known.
  showPaint(id) {
    const { image } = this.compare.left;
    const show = () => {
      if (this.cards[this.chosen]?.id !== id || !image.naturalWidth) return;
      this.brush.load(paintOf(this.widget("painted")?.value).get(id), image.naturalWidth / image.naturalHeight);
    };
    if (image.complete) show();
    else image.addEventListener("load", show, { once: true });
  }

  // The result that stands beside the picture by itself: of the last run, else the sweep's with the chosen value.
  usual(results) {
    const found =
      results.find((result) => !result.sweep) ?? results.find((result) => result.sigma === this.sigmas[this.chosen]);
    return (found ?? results[0])?.key;
  }

  get comparing() {
    return !this.compare.stage.hidden;
  }

  // Of the widget: buttons, a row of pictures, and the comparison or a line in its place.
  get minHeight() {
    return this.comparing ? 530 : 300;
  }
}
