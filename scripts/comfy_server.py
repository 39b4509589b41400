"""A real ComfyUI as a child process, and a small client for its HTTP and websocket API.

Used by the demo and by tests/comfyui. Needs aiohttp, which ComfyUI brings.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import aiohttp

READY = "To see the GUI go to"
TEXT_EVENT = (3).to_bytes(4, "big")  # ComfyUI's mark of a binary message that is text for a node


class ServerError(RuntimeError):
    """ComfyUI did not start, or ended while it was needed. The message ends with the tail of its log."""


class PromptError(RuntimeError):
    """A prompt that was refused or that failed.

    message: ComfyUI's text for the error box. node_id, node_type: the node it names, or None.
    details: ComfyUI's own record of the error.
    """

    def __init__(self, message: str, node_id: str | None, node_type: str | None, details: dict):
        at = f" (node {node_id}, {node_type})" if node_id else ""
        super().__init__(f"{message.strip()}{at}")
        self.message, self.node_id, self.node_type, self.details = message, node_id, node_type, details


@dataclass(frozen=True)
class Finished:
    """A prompt that ran. outputs: node id -> what its UI shows, e.g. {"images": [{"filename": ...}]}."""

    prompt_id: str
    outputs: dict[str, dict]
    messages: list


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class ComfyServer:
    """ComfyUI with its input, output, temp and user folders under `folder`, so that nobody's own are touched.

    Of custom_nodes only the folders `pack` and `more_packs` are loaded. A context manager; start(), stop() do the same.
    """

    def __init__(
        self,
        comfyui: Path,
        python: Path,
        folder: Path,
        *,
        pack: str,
        more_packs: tuple[str, ...] = (),
        cpu: bool = True,
        arguments: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ):
        self._env = env or {}
        self.comfyui, self.python, self.folder = Path(comfyui), Path(python), Path(folder)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log_file = self.folder / "comfyui.log"
        self._arguments = [
            "--port", str(self.port), "--disable-auto-launch", "--database-url", "sqlite:///:memory:",
            "--disable-all-custom-nodes", "--whitelist-custom-nodes", pack, *more_packs, "--disable-api-nodes",
            *(["--cpu"] if cpu else []),
            *arguments,
        ]  # fmt: skip
        self._process: subprocess.Popen | None = None
        self._ready = threading.Event()
        self._reader: threading.Thread | None = None

    @property
    def input(self) -> Path:
        return self.folder / "input"

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def pid(self) -> int:
        """The server's process, while it runs."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self, timeout: float = 900.0) -> None:
        """Starts ComfyUI and returns when it answers. Raises ServerError where it ends or takes too long."""
        folders = []
        for name in ("input", "output", "temp", "user"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            folders += [f"--{name}-directory", str(self.folder / name)]
        self._process = subprocess.Popen(
            [str(self.python), "main.py", *self._arguments, *folders],
            cwd=self.comfyui,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **self._env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        in_time = self._ready.wait(timeout)
        if not in_time or not self.alive:
            tail = self.log_tail()
            self.stop()
            what = "ended while starting" if in_time else f"did not start within {timeout:.0f} s"
            raise ServerError(f"ComfyUI {what}. Its last lines:\n{tail}")

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)

    def log(self) -> str:
        """Everything ComfyUI has printed so far."""
        return self.log_file.read_text(errors="replace", encoding="utf-8") if self.log_file.exists() else ""

    def log_tail(self, lines: int = 25) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def queue(
        self,
        prompt: dict,
        *,
        on_event: Callable[[str, dict], None] | None = None,
        timeout: float = 900.0,
        extra: dict | None = None,
    ) -> Finished:
        """Runs an API-format graph to its end and returns what it put out.

        on_event gets every websocket message of the run: its type and its data; for text that a node shows about
        itself "text" and {"node": its id, "text": the text}.
        extra: what the front end sends along, such as {"extra_pnginfo": {"workflow": ...}}.
        Raises PromptError where ComfyUI refuses the graph or a node fails, ServerError where the server ends.
        """
        return self._call(asyncio.wait_for(self._queue(prompt, on_event, extra), timeout))

    def get(self, path: str, **query: str) -> dict:
        """The JSON answer of a GET, e.g. get("/system_stats")."""
        return json.loads(self._call(self._request("GET", path, params=query)))

    def post(self, path: str, body: dict) -> None:
        """Sends JSON, e.g. post("/free", {"free_memory": True})."""
        self._call(self._request("POST", path, json=body))

    def object_info(self, node: str | None = None) -> dict:
        """What ComfyUI tells its frontend about every node, or about one (the entry itself)."""
        return self.get(f"/object_info/{node}")[node] if node else self.get("/object_info")

    def upload_image(self, image: bytes | Path, name: str | None = None) -> str:
        """Puts an image file into the input folder; returns the name LoadImage knows it by."""
        content = image.read_bytes() if isinstance(image, Path) else image
        name = name or (image.name if isinstance(image, Path) else f"{uuid.uuid4().hex}.png")
        form = aiohttp.FormData()
        form.add_field("image", content, filename=name, content_type="image/png")
        form.add_field("overwrite", "true")
        return json.loads(self._call(self._request("POST", "/upload/image", data=form)))["name"]

    def view(self, image: dict) -> bytes:
        """The file behind one entry of a node's "images"."""
        return self._call(self._request("GET", "/view", params={k: str(v) for k, v in image.items()}))

    def image_files(self, finished: Finished, node_id: str | None = None) -> list[bytes]:
        """Every image of a run in order, or only those of one node, as file contents."""
        nodes = [str(node_id)] if node_id is not None else sorted(finished.outputs)
        return [self.view(entry) for node in nodes for entry in finished.outputs[node].get("images", [])]

    def _read_log(self) -> None:
        with self.log_file.open("wb") as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                if READY.encode() in line:
                    self._ready.set()
        self._process.wait()
        self._ready.set()

    def _call(self, coroutine):
        try:
            # In a thread of its own, because the caller's may have a running event loop already.
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(asyncio.run, coroutine).result()
        except (aiohttp.ClientConnectionError, asyncio.TimeoutError) as error:
            what = "gives no answer" if self.alive else "has ended"
            raise ServerError(f"ComfyUI {what} ({type(error).__name__}). Log:\n{self.log_tail()}") from error

    async def _request(self, method: str, path: str, **options) -> bytes:
        limit = aiohttp.ClientTimeout(total=900)
        async with (
            aiohttp.ClientSession(f"http://{self.address}", timeout=limit) as session,
            session.request(method, path, **options) as response,
        ):
            response.raise_for_status()
            return await response.read()

    async def _queue(self, prompt: dict, on_event, extra: dict | None) -> Finished:
        client = uuid.uuid4().hex
        async with aiohttp.ClientSession(f"http://{self.address}") as session:
            # The socket opens before the prompt is posted, so that no message of the run is missed.
            async with session.ws_connect(f"/ws?clientId={client}", max_msg_size=0) as socket_:
                body = {"prompt": prompt, "client_id": client, "extra_data": extra or {}}
                async with session.post("/prompt", json=body) as response:
                    posted = await response.json()
                    if response.status != 200:
                        raise _refusal(posted)
                await self._follow(socket_, posted["prompt_id"], on_event)
            async with session.get(f"/history/{posted['prompt_id']}") as response:
                entry = (await response.json())[posted["prompt_id"]]
        if posted.get("node_errors"):
            raise _refusal(posted)
        messages = entry["status"]["messages"]
        for kind, data in messages:
            if kind == "execution_error":
                raise PromptError(data["exception_message"], data["node_id"], data["node_type"], data)
            if kind == "execution_interrupted":
                raise PromptError("The run was interrupted.", data["node_id"], data["node_type"], data)
        return Finished(posted["prompt_id"], entry["outputs"], messages)

    async def _follow(self, socket_: aiohttp.ClientWebSocketResponse, prompt_id: str, on_event) -> None:
        async for message in socket_:
            if message.type is aiohttp.WSMsgType.BINARY and on_event and message.data[:4] == TEXT_EVENT:
                on_event("text", _text_on_node(message.data[4:]))
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            event = json.loads(message.data)
            data = event.get("data") or {}
            if data.get("prompt_id") != prompt_id:
                continue
            if on_event:
                on_event(event["type"], data)
            # ComfyUI writes the history entry first and only then says that no node is running.
            if event["type"] == "executing" and data.get("node") is None:
                return
        raise ServerError(f"ComfyUI closed the connection during a run. Log:\n{self.log_tail()}")


def _text_on_node(message: bytes) -> dict:
    length = int.from_bytes(message[:4], "big")
    return {"node": message[4 : 4 + length].decode(), "text": message[4 + length :].decode()}


def _refusal(answer: dict) -> PromptError:
    for node_id, report in (answer.get("node_errors") or {}).items():
        error = report["errors"][0]
        text = ": ".join(part for part in (error["message"], error.get("details")) if part)
        return PromptError(text, node_id, report.get("class_type"), answer)
    error = answer.get("error") or {}
    message = error.get("message", "refused") if isinstance(error, dict) else str(error)
    return PromptError(message, None, None, answer)


def temporary_folder() -> tempfile.TemporaryDirectory:
    # ComfyUI may still write a last line while the folder goes.
    return tempfile.TemporaryDirectory(prefix="pidkit-", ignore_cleanup_errors=True)
