"""A local server that speaks the model hub's protocol, with the faults a download can meet."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

COMMIT = "c0ffee" + "0" * 34


class Request(NamedTuple):
    method: str
    path: str
    range: str | None
    authorization: str | None
    host: str


class HubServer:
    """Serves `files` ({(repo, path): content}); a context manager.

    The hub answers at `endpoint`; the bytes come from another host name, as the hub's from its CDN.
    cuts: for each request for bytes in turn, how many to send before the connection breaks (None: all).
    errors: (repo, path) -> (status, X-Error-Code). sent: content that really comes, where it is not what was promised.
    ranges: False ignores Range headers, as some proxies do. etags: (repo, path) -> what stands in place of the SHA-256.
    sizes: (repo, path) -> a promised size that is not the content's.
    redirects: (repo, path) -> where the bytes are said to be.
    stalled: set it to an Event, and after half of the content nothing comes until the event is set.
    """

    def __init__(self):
        self.files: dict[tuple[str, str], bytes] = {}
        self.sent: dict[tuple[str, str], bytes] = {}
        self.errors: dict[tuple[str, str], tuple[int, str | None]] = {}
        self.etags: dict[tuple[str, str], str] = {}
        self.sizes: dict[tuple[str, str], int] = {}
        self.redirects: dict[tuple[str, str], str] = {}
        self.stalled: threading.Event | None = None
        self.cuts: list[int | None] = []
        self.ranges = True
        self.requests: list[Request] = []
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def for_bytes(self) -> list[Request]:
        """The requests for content."""
        return [r for r in self.requests if r.method == "GET" and r.path.startswith("/cdn/")]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_) -> None:
        """A client that goes is what is tested; anything else the client's test sees."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path  # a proxy is asked for the whole URL
        seen = self.headers
        self.hub.requests.append(
            Request(self.command, path, seen.get("Range"), seen.get("Authorization"), seen.get("Host", ""))
        )
        if path.startswith("/cdn/"):
            return self._send_bytes(path.removeprefix("/cdn/"))
        if path.startswith("/api/models/"):
            return self._list(path.removeprefix("/api/models/").partition("/tree/")[0])
        repo, _, file = path.strip("/").partition("/resolve/main/")
        status, code = self.hub.errors.get((repo, file), (None, None))
        if status is None and (repo, file) not in self.hub.files:
            known = any(name == repo for name, _ in self.hub.files)
            status, code = 404, "EntryNotFound" if known else "RepoNotFound"
        if status is not None:
            headers = {"X-Error-Code": code} if code else {}
            return self._head(status, {"Content-Length": "0", **headers})
        content = self.hub.files[repo, file]
        digest = self.hub.etags.get((repo, file), hashlib.sha256(content).hexdigest())
        scheme_and_host = f"http://localhost:{self.hub.port}" if "127.0.0.1" in seen.get("Host", "") else ""
        there = f"{scheme_and_host or 'http://' + seen['Host']}/cdn/{repo}/resolve/main/{file}?signature=1"
        self._head(
            302,
            {
                "X-Repo-Commit": COMMIT,
                "X-Linked-Size": str(self.hub.sizes.get((repo, file), len(content))),
                "X-Linked-Etag": f'"{digest}"',
                "Location": self.hub.redirects.get((repo, file), there),
                "Content-Length": "0",
            },
        )

    def _list(self, repo: str) -> None:
        files = []
        for (name, path), content in self.hub.files.items():
            if name == repo and (name, path) not in (*self.hub.etags, *self.hub.errors):
                lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
                files.append({"type": "file", "path": path, "size": len(content), "oid": "0" * 40, "lfs": lfs})
        body = json.dumps(files).encode()
        self._head(200, {"Content-Length": str(len(body)), "Content-Type": "application/json"})
        self.wfile.write(body)

    def _send_bytes(self, name: str) -> None:
        repo, _, file = name.partition("/resolve/main/")
        content = self.hub.sent.get((repo, file), self.hub.files[repo, file])
        range_header = self.headers.get("Range")
        start = int(range_header.removeprefix("bytes=").split("-")[0]) if range_header and self.hub.ranges else 0
        if start and start >= len(content):
            return self._head(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(content)}"})
        part = content[start:]
        headers = {"Content-Length": str(len(part))}
        if range_header and self.hub.ranges:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._head(206 if range_header and self.hub.ranges else 200, headers)
        cut = self.hub.cuts.pop(0) if self.hub.cuts else None
        if self.hub.stalled is not None:
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.hub.stalled.wait()
            part = part[len(part) // 2 :]
        self.wfile.write(part if cut is None else part[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
