// The pictures of our example workflows: put into ComfyUI's input folder before such a workflow is drawn, however it
// was opened, so that Load Image shows them and nothing is marked as missing.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { word } from "./words.js";

const OURS = /"(pidkit_[\w-]+\.png|pidkit_photos)"/g; // the last is a folder of all
const ready = new Set();

// Undo and redo load the graph anew too, over the one that is there: what that one shows needs no asking.
function isShown(name) {
  const widgets = (app.rootGraph?.nodes ?? []).flatMap((node) => node.widgets ?? []);
  return ready.has(name) && widgets.some((widget) => widget.value === name);
}

async function bring(names) {
  try {
    const body = JSON.stringify({ names });
    const headers = { "Content-Type": "application/json" };
    const answer = await api.fetchApi("/pidkit/example_pictures", { method: "POST", headers, body });
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    return await answer.json();
  } catch (error) {
    return { ready: [], failed: Object.fromEntries(names.map((name) => [name, error.message])) };
  }
}

function tell(failed) {
  for (const reason of new Set(Object.values(failed))) {
    const names = Object.keys(failed).filter((name) => failed[name] === reason);
    const detail = word("pictureFailed", names.join(", "), reason);
    app.extensionManager.toast.add({ severity: "warn", summary: "PiDKit", detail, life: 20000 });
  }
}

app.registerExtension({
  name: "PiDKit.ExamplePictures",

  async beforeConfigureGraph(graph) {
    const named = new Set([...JSON.stringify(graph).matchAll(OURS)].map(([, name]) => name));
    const names = [...named].filter((name) => !isShown(name));
    if (!names.length) return;
    const brought = await bring(names);
    for (const name of brought.ready) ready.add(name);
    tell(brought.failed);
  },

  // The lists to choose from are those of the page's start. ComfyUI adds to them in the same way after an upload.
  loadedGraphNode(node) {
    for (const { type, value, options } of node.widgets ?? []) {
      const values = options?.values;
      if (type === "combo" && ready.has(value) && Array.isArray(values) && !values.includes(value)) values.push(value);
    }
  },
});
