// ComfyUI fits a workflow from its template browser into the page, a large one so small that the classic rendering writes
// no text. Ours then open with note and first nodes readable, as by every other way.

import { app } from "../../scripts/app.js";

const MARK = "pidkit_example";
const READABLE = 0.6; // of the canvas's scale
const CORNER = [90, 115]; // where the views that are saved have the top left, in pixels of the page
let saved;
let scaleBefore;

app.registerExtension({
  name: "PiDKit.ExampleView",

  beforeConfigureGraph(graph) {
    saved = graph.extra?.[MARK] ? graph.extra.ds : undefined;
    scaleBefore = app.canvas.ds.scale;
  },

  afterConfigureGraph() {
    const { ds } = app.canvas;
    const fitted = ds.scale !== scaleBefore; // undo and redo load the graph anew too, and leave the view
    if (!saved || !fitted || ds.scale >= Math.min(READABLE, saved.scale)) return;
    CORNER.forEach((at, i) => {
      ds.offset[i] = saved.offset[i] + at / READABLE - at / saved.scale;
    });
    ds.scale = READABLE;
    app.canvas.setDirty(true, true);
  },
});
