"""ComfyUI's own front end in a real Chromium, driven as a user would."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page, Response

import comfy_env

SCREENSHOTS = comfy_env.ROOT / "output" / "screenshots" / comfy_env.commit()[:8]
SIZE = {"width": 1600, "height": 1000}
# A returning user of the plainest kind: no tour, no news, no saved layout.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "1.0.0",
    "Comfy.Minimap.Visible": False,
    "Comfy.Workflow.Persist": False,
    "Comfy.Window.UnloadConfirmation": False,
    "Comfy.Workflow.WarnUnsavedChanges": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Pointer.DoubleClickTime": 1000,  # ms, the most there is: a busy machine takes its time between two clicks
    "Comfy.ColorPalette": "dark",
    "Comfy.Locale": "en",
    "Comfy.Extension.Disabled": [],
    "Comfy.RightSidePanel.IsOpen": False,
    "Comfy.VueNodes.Enabled": False,
    "Comfy.OnboardingCoachmarks.Seen": ["appMode"],
}
ELSEWHERE = re.compile(r"^https?://(?!127\.0\.0\.1|localhost)")  # other machines
# What the front end itself says: its default workflow asks the network for model files, its error panel for packs.
ITS_OWN = ("huggingface.co", "api.comfy.org", "ComfyApp graph accessed before initialization")
USER_FILES = {"user.css": "", "comfy.templates.json": "[]", "workflows/.index.json": "{}", "subgraphs/.keep": ""}
DROP = """([text, name]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name, { type: "application/json" }));
  const target = document.querySelector("#graph-canvas");
  const where = { dataTransfer: data, bubbles: true, cancelable: true, clientX: 800, clientY: 500 };
  for (const kind of ["dragenter", "dragover", "drop"]) target.dispatchEvent(new DragEvent(kind, where));
}"""

MISSING_MEDIA = """() => {
  const { $pinia } = document.querySelector("#vue-app").__vue_app__.config.globalProperties;
  return ($pinia.state.value.missingMedia.missingMediaCandidates ?? []).map((candidate) => candidate.name);
}"""

# Whether a text is drawn, and nothing of it is cut off: by a box that scrolls, or by the frame of its node.
WHOLE = """text => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode() && !texts.currentNode.data.includes(text));
  if (!texts.currentNode.data?.includes(text)) return false;
  const line = texts.currentNode.parentElement, frame = line.closest(".dom-widget, .lg-node");
  if (!frame || line.getBoundingClientRect().bottom > frame.getBoundingClientRect().bottom + 1) return false;
  for (let box = line.parentElement; box !== frame; box = box.parentElement)
    if (box.scrollHeight > box.clientHeight + 1) return false;
  return true;
}"""

# A last resort: for so long, in seconds, nothing at all may happen.
PATIENCE = 90

# What turns or throbs as long as a run lasts would take more of the processor than the run: once is enough.
CALM = """() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("*, ::before, ::after { animation-iteration-count: 1 !important; }");
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
}"""

# The tabs of tests before: a hundred of them take longer to draw than a test.
CLOSE_OTHERS = """async () => {
  const tabs = app.extensionManager.workflow;
  for (const tab of [...tabs.openWorkflows]) if (tab !== tabs.activeWorkflow) await tabs.closeWorkflow(tab);
}"""

WATCH_RUNS = """() => {
  if (window.endedRuns) return;
  window.endedRuns = {};
  window.newsOfRuns = 0;
  for (const kind of ["progress", "progress_state", "executing", "executed", "status"])
    app.api.addEventListener(kind, () => { window.newsOfRuns += 1; });
  for (const kind of ["execution_success", "execution_error", "execution_interrupted"])
    app.api.addEventListener(kind, ({ detail }) => { window.endedRuns[detail.prompt_id] = { kind, ...detail }; });
}"""


def find_chromium() -> str | None:
    """Debian's Chromium, or the browser that CHROMIUM names."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium")


class FrontEnd:
    """One page of the front end. `errors` fills with what a user would find in red in the browser's console."""

    def __init__(self, browser: Browser, comfy):
        self.comfy = comfy
        self.errors: list[str] = []
        self._settings: dict | None = None
        self._prepare_user()
        self.context = browser.new_context(viewport=SIZE, permissions=["clipboard-read", "clipboard-write"])
        self.context.set_default_timeout(PATIENCE * 1000)
        self.context.add_init_script(f"({CALM})()")
        self.page: Page = self.context.new_page()
        self.page.on("console", self._on_console)
        self.page.on("pageerror", self._on_page_error)
        self.page.on("response", self._on_response)

    def _prepare_user(self) -> None:
        # Without these the front end asks in vain, and its 404s would hide ours.
        for name, text in USER_FILES.items():
            file = self.comfy.folder / "user" / "default" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")

    def _on_console(self, message: ConsoleMessage) -> None:
        # Failed loads are reported by _on_response, with their address.
        known = ("Failed to load resource", *ITS_OWN)
        if message.type == "error" and not any(text in message.text for text in known):
            self.errors.append(message.text)

    def _on_page_error(self, error: Error) -> None:
        self.errors.append(f"page error: {error}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400 and not response.url.endswith("/user.css"):
            self.errors.append(f"{response.status} for {response.request.method} {response.url}")

    def open(self, **settings: Any) -> None:
        """An empty canvas, with these settings of the user: Locale="zh" for Comfy.Locale, _ for a further dot."""
        body = SETTINGS | {f"Comfy.{name.replace('_', '.')}": value for name, value in settings.items()}
        if body != self._settings:
            self._load(body)
        self.js("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
        self.wait("() => app.graph.nodes.length === 0")
        self.js(CLOSE_OTHERS)

    def open_anew(self, **settings: Any) -> None:
        """`open` with a page that is loaded now: it knows the files that the server has now."""
        self._settings = None
        self.open(**settings)

    def leave(self) -> None:
        """Leaves the page, and what was wrong on it."""
        self._settings = None
        self.page.goto("about:blank")
        self.errors.clear()

    def reload(self) -> None:
        """What the browser's reload button does."""
        self.page.reload()
        self.loaded()

    def _load(self, body: dict) -> None:
        self._settings = body
        self.context.request.post(f"http://{self.comfy.address}/api/settings", data=json.dumps(body))
        # What another test left open is kept in the browser, and would open again. Cleared where no front end runs that
        # writes it once more on leaving.
        self.page.goto(f"http://{self.comfy.address}/api/system_stats")
        self.js("() => { localStorage.clear(); sessionStorage.clear(); }")
        self.page.goto(f"http://{self.comfy.address}/")
        self.loaded()

    def loaded(self) -> None:
        """Waits until a page that was opened or opened again can be used."""
        self.page.wait_for_function("() => window.app?.vueAppReady && window.app?.canvas?.graph")
        self.page.locator(".p-blockui-mask, .comfyui-blockui").wait_for(state="hidden")

    def js(self, code: str, argument: Any = None) -> Any:
        """The value of a JavaScript function called in the page."""
        return self.page.evaluate(code, argument)

    def wait(self, code: str, argument: Any = None) -> None:
        """Waits until a JavaScript function gives a true value."""
        self.page.wait_for_function(code, arg=argument)

    def drop(self, file: Path) -> None:
        """Drops a workflow file onto the canvas and waits until its nodes are there."""
        self.drop_text(file.read_text(encoding="utf-8"), file.name)

    def drop_text(self, text: str, name: str) -> None:
        """`drop`, for a file that exists only here. It opens in a tab of its own."""
        self.js("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
        self.js(DROP, [text, name])
        self.wait(
            """([count, name]) => app.graph.nodes.length === count
              && app.extensionManager.workflow.activeWorkflow.filename.startsWith(name)""",
            [len(json.loads(text)["nodes"]), name.partition(".")[0]],
        )

    def tab(self) -> str:
        """The name of the open tab."""
        return self.js("() => app.extensionManager.workflow.activeWorkflow.filename")

    def go_to(self, tab: str) -> None:
        """Clicks a tab, and waits until it is the open one and the mouse has left it.

        While the mouse rests there, a popover with the tab's name is open: a dialog to the front end, which takes no
        keys for undo meanwhile.
        """
        self.page.locator(".workflow-tab", has=self.page.get_by_text(tab, exact=True)).click()
        self.wait("name => app.extensionManager.workflow.activeWorkflow.filename === name", tab)
        self.page.mouse.move(SIZE["width"] / 2, SIZE["height"] / 2)
        self.page.locator(".workflow-popover-fade").wait_for(state="detached")

    def add_node(self, node_type: str, x: float = 0) -> int:
        """Puts a node on the canvas, so far to the right; returns its id."""
        return self.js(
            """([type, x]) => { const node = LiteGraph.createNode(type); app.graph.add(node);
                                node.pos[0] += x; return node.id; }""",
            [node_type, x],
        )

    def select(self, node: int) -> None:
        """This node and no other."""
        self.js("id => { app.canvas.deselectAll(); app.canvas.selectItems([app.graph.getNodeById(id)]); }", node)

    def missing(self) -> list[str]:
        """Types of nodes on the canvas that nobody provides."""
        types = self.js("() => app.graph.nodes.map(n => n.type)")
        return [name for name in types if not self.js("name => name in LiteGraph.registered_node_types", name)]

    def missing_media(self) -> list[str]:
        """Files that the front end marks as missing on the nodes which name them."""
        return self.js(MISSING_MEDIA)

    def toasts(self) -> Locator:
        return self.page.get_by_role("alert")

    def dialogs(self) -> Locator:
        return self.page.get_by_role("dialog")

    def double_click(self, x: float, y: float) -> None:
        """Two clicks as a hand makes them. The front end takes two of the same millisecond for one."""
        self.page.mouse.dblclick(x, y, delay=10)  # ms

    def run(self, button: Locator | None = None) -> str:
        """Presses Run and waits for the end of that run, however long, as long as it moves on; returns the prompt's id.

        button: App mode's, where it is not the one above the canvas. Raises RuntimeError if it failed.
        """
        self.js(WATCH_RUNS)
        with self.page.expect_response(re.compile(r"/api/prompt$")) as posted:
            (button or self.page.get_by_test_id("queue-button").first).click()
        answer = posted.value
        # ComfyUI runs what it can of a graph and only mentions the rest
        assert answer.ok and not answer.json().get("node_errors"), answer.text()
        prompt_id = answer.json()["prompt_id"]
        while (ended := self.js("id => window.endedRuns[id]", prompt_id)) is None:
            news = self.js("() => window.newsOfRuns")
            self.wait("([id, news]) => window.endedRuns[id] || window.newsOfRuns > news", [prompt_id, news])
        if ended["kind"] != "execution_success":
            raise RuntimeError(f"{ended['kind']}: {ended.get('exception_message', '')}")
        return prompt_id

    def history(self, prompt_id: str) -> dict:
        """The server's record of a run."""
        return self.context.request.get(f"http://{self.comfy.address}/history/{prompt_id}").json()[prompt_id]

    def picture_url(self, prompt_id: str, node: int, index: int) -> str:
        """The address under which the front end shows an image of a run."""
        image = self.history(prompt_id)["outputs"][str(node)]["images"][index]
        return self.js("image => app.api.apiURL('/view?' + new URLSearchParams(image))", image)

    def pictures(self, prompt_id: str, node: int) -> list[Image.Image]:
        """The images of a node in a run."""
        count = len(self.history(prompt_id)["outputs"][str(node)]["images"])
        urls = [f"http://{self.comfy.address}{self.picture_url(prompt_id, node, i)}" for i in range(count)]
        files = [self.context.request.get(url).body() for url in urls]
        return [Image.open(io.BytesIO(file)).convert("RGB") for file in files]

    def wait_for_pictures(self, node_type: str) -> None:
        """Waits until the one node of this type shows the images of its last run."""
        self.wait(
            """type => {
              const node = app.graph.nodes.find(n => n.type === type);
              const drawn = document.querySelectorAll(`[data-node-id="${node.id}"] img`);
              const images = drawn.length ? [...drawn] : node.imgs ?? [];
              const shown = images.filter(i => i.complete && i.naturalWidth > 0);
              return app.nodeOutputs[node.id]?.images?.length && shown.length && shown.length === images.length;
            }""",
            node_type,
        )

    def node_box(self, node: int) -> dict:
        """Where a node is on the page: x, y, width, height in CSS pixels, title bar included."""
        return self.js(
            """id => {
              const [x, y, width, height] = app.canvas.graph.getNodeById(id).getBounding();
              const { scale, offset } = app.canvas.ds;
              const canvas = app.canvas.canvas.getBoundingClientRect();
              return { x: canvas.x + (x + offset[0]) * scale, y: canvas.y + (y + offset[1]) * scale,
                       width: width * scale, height: height * scale };
            }""",
            node,
        )

    def boxes(self) -> list[dict]:
        """Where every node is on the page, as it is drawn: type, left, top, right, bottom in CSS pixels."""
        self.settle()
        return self.js(
            """() => app.graph.nodes.map(node => {
              const drawn = document.querySelector(`.lg-node[data-node-id="${node.id}"]`)?.getBoundingClientRect();
              const view = app.canvas.canvas.getBoundingClientRect(), { scale, offset } = app.canvas.ds;
              const [x, y, width, height] = node.getBounding();
              const left = drawn?.left ?? view.x + (x + offset[0]) * scale;
              const top = drawn?.top ?? view.y + (y + offset[1]) * scale;
              return { type: node.type, left, top, right: left + (drawn?.width ?? width * scale),
                       bottom: top + (drawn?.height ?? height * scale) };
            })"""
        )

    def show(self, *nodes: int) -> None:
        """Moves the view so that these nodes, or all, fill the page, once they lie still.

        An undo loads the graph anew, and Nodes 2.0 measures a node after that: until then it is not where it will be.
        """
        self.wait(
            """ids => {
              const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker;
              const nodes = app.canvas.graph.nodes.filter(n => !ids.length || ids.includes(n.id));
              const boxes = nodes.map(n => n.getBounding());
              const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]));
              const right = Math.max(...boxes.map(b => b[0] + b[2]));
              const bottom = Math.max(...boxes.map(b => b[1] + b[3]));
              const view = app.canvas.canvas.getBoundingClientRect();
              const ds = app.canvas.ds, before = [ds.scale, ...ds.offset].join();
              ds.scale = Math.min(1.5, (view.width - 360) / (right - left), (view.height - 240) / (bottom - top));
              ds.offset[0] = view.width / 2 / ds.scale - (left + right) / 2;
              ds.offset[1] = view.height / 2 / ds.scale - (top + bottom) / 2;
              app.canvas.setDirty(true, true);
              return !tracker?._restoringState && before === [ds.scale, ...ds.offset].join();
            }""",
            list(nodes),
        )

    def id_of(self, node_type: str, number: int = 0) -> int:
        """The id of the first, or a later, node of this type."""
        return self.js(
            "([type, number]) => app.canvas.graph.nodes.filter(n => n.type === type)[number].id", [node_type, number]
        )

    def wait_for_images(self, selector: str, count: int) -> None:
        """Waits until so many pictures are there, and loaded."""
        self.wait(
            """([selector, count]) => [...document.querySelectorAll(selector)]
              .filter(i => i.complete && i.naturalWidth > 0).length === count""",
            [selector, count],
        )

    def wait_for_text(self, text: str) -> None:
        """Waits until a node shows this text, whole."""
        self.wait(WHOLE, text)

    def settle(self) -> None:
        """Waits until what is on the canvas has been drawn."""
        self.js("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))")

    def screenshot(self, name: str, *nodes: int, margin: int = 0) -> Path:
        """The page, or the part of it where these nodes are, as output/screenshots/<commit>/<name>.png.

        None is taken in CI, where nobody looks at it.
        """
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.settle()
        file = SCREENSHOTS / f"{name}.png"
        if os.environ.get("CI") == "true":
            return file
        boxes = [self.node_box(node) for node in nodes]
        clip = None
        if boxes:
            left, top = min(b["x"] for b in boxes) - margin, min(b["y"] for b in boxes) - margin
            right = max(b["x"] + b["width"] for b in boxes) + margin
            bottom = max(b["y"] + b["height"] for b in boxes) + margin
            clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        self.page.screenshot(path=file, clip=clip)
        return file
