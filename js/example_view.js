// ComfyUI fits a workflow from its template browser into the page, a large one so small that the classic rendering writes
// no text. Ours then open with the view that is saved in them, as by every other way: note and first nodes readable.

import { app } from "../../scripts/app.js";

const MARK = "pidkit_example";
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
    if (!saved || !fitted || ds.scale >= saved.scale) return;
    ds.scale = saved.scale;
    [ds.offset[0], ds.offset[1]] = saved.offset;
    app.canvas.setDirty(true, true);
  },
});
