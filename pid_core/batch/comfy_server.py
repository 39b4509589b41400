"""A running ComfyUI, as far as a batch needs it: a picture up, a workflow to run, a picture down."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError, URLError

from ..errors import prints_bare
from ..printable import printable
from .results import EngineError

PATIENCE = 60.0  # seconds for an answer; running a workflow is asked for again and again
GONE = (ConnectionError, TimeoutError, URLError, http.client.HTTPException)


@prints_bare
class ServerGoneError(EngineError):
    """The server does not answer any more, or knows nothing of what it was given."""


class Server:
    """url: as a browser would open it, with or without http://. poll: seconds between two questions."""

    def __init__(self, url: str, poll: float = 0.25, sleep: Callable[[float], None] = time.sleep):
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self._poll, self._sleep = poll, sleep
        self._client = uuid.uuid4().hex

    def check(self) -> None:
        """Raise ServerGoneError where it does not answer."""
        self._ask("/system_stats")

    def upload(self, name: str, content: bytes) -> str:
        """Put a picture into the server's input folder; the name that LoadImage takes."""
        boundary = uuid.uuid4().hex
        fields = {"type": "input", "subfolder": "pidkit_batch", "overwrite": "true"}
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in fields.items()
        ]
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        parts.append(head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n")
        parts.append(f"--{boundary}--\r\n".encode())
        kind = f"multipart/form-data; boundary={boundary}"
        answer = json.loads(self._ask("/upload/image", b"".join(parts), kind))
        return f"{answer['subfolder']}/{answer['name']}" if answer.get("subfolder") else answer["name"]

    def run(self, workflow: dict[str, Any]) -> dict[str, Any]:
        """Run a workflow in API form to its end; outputs by node. Raises ValueError in one line where it fails."""
        body = json.dumps({"prompt": workflow, "client_id": self._client}).encode()
        number = json.loads(self._ask("/prompt", body, "application/json"))["prompt_id"]
        while (entry := self._ended(number)) is None:
            if not self._is_queued(number) and self._ended(number) is None:  # it may have ended between the two
                raise ServerGoneError(f"{self.url} lost it: taken out of its queue, or the server was started anew")
            self._sleep(self._poll)
        if entry.get("status", {}).get("status_str") == "error":
            raise ValueError(_failure(entry["status"].get("messages", [])))
        return entry["outputs"]

    def _ended(self, number: str) -> dict[str, Any] | None:
        return json.loads(self._ask(f"/history/{number}")).get(number)

    def _is_queued(self, number: str) -> bool:
        queue = json.loads(self._ask("/queue"))
        return any(number in item for items in queue.values() for item in items)

    def picture(self, image: dict[str, str]) -> bytes:
        """The file of a picture among a workflow's outputs."""
        query = urllib.parse.urlencode({key: image.get(key, "") for key in ("filename", "subfolder", "type")})
        return self._ask(f"/view?{query}")

    def _ask(self, path: str, body: bytes | None = None, kind: str | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind} if kind else {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.read()
        except HTTPError as error:
            raise ValueError(f"{self.url} refuses: {_refusal(error)}") from None
        except GONE as error:
            raise ServerGoneError(f"{self.url} does not answer ({printable(error)})") from None


def _refusal(error: HTTPError) -> str:
    try:
        answer = json.loads(error.read())
        details = [e["message"] + ": " + e["details"] for n in answer["node_errors"].values() for e in n["errors"]]
        return printable("; ".join(details) or answer["error"]["message"], 300)
    except (ValueError, KeyError, TypeError, AttributeError, *GONE):
        return f"{error.code} {error.reason}"


def _failure(messages: list) -> str:
    for kind, facts in messages:
        if kind == "execution_error":
            return f"{facts.get('node_type')}: {printable(facts.get('exception_message', ''), 300).strip()}"
        if kind == "execution_interrupted":
            return "interrupted at the server"
    return "the workflow failed"
