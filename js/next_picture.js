// Run (Instant) ends when PiD Next Picture has nothing left: the run itself ends well, and the next would begin at once.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { nodesOf } from "./graph.js";

const RUNNING = "instant-running";
const IDLE = "instant-idle"; // as ComfyUI's own button leaves it when it is pressed to stop

app.registerExtension({
  name: "PiDKit.NextPicture",

  setup() {
    api.addEventListener("executed", ({ detail }) => {
      const line = detail.output?.pidkit_next?.at(-1)?.nothing_left;
      const queue = app.extensionManager.queueSettings;
      if (!line || queue?.mode !== RUNNING) return;
      queue.mode = IDLE;
      const summary = nodesOf(detail.display_node ?? detail.node).at(-1)?.title ?? "PiD Next Picture";
      app.extensionManager.toast.add({ severity: "info", summary, detail: line, life: 20000 });
    });
  },
});
