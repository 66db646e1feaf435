"""A hub on loopback with the few endpoints that an upload calls: repositories, large files, commits."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """What it was asked, and what it holds."""

    url: str
    token: str
    refuses: bool = False
    """Answers 403 to whatever would write."""
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> what it was made with."""
    large: dict[str, bytes] = field(default_factory=dict)
    """SHA-256 -> content."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Of all commits."""
    cards: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    """Requests that it does not know."""


@contextmanager
def local_hub(token: str, refuses: bool = False) -> Iterator[Hub]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            hub.strange.append(f"GET {self.path}")
            self._send(404, {"error": "no such thing"})

        def do_PUT(self) -> None:
            hub.large[self.path.rpartition("/")[2]] = self._body()
            self._send(200, {})

        def do_POST(self) -> None:
            body = self._body()
            path = self.path.partition("?")[0]
            if path == "/api/validate-yaml":
                hub.cards.append(json.loads(body)["content"])
                self._send(200, {"errors": [], "warnings": []})
            elif hub.refuses or self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._send(403, {"error": f"no right to write: {self.headers.get('Authorization')}"})
            elif path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                hub.repositories[name] = asked
                self._send(200, {"url": f"{hub.url}/{name}"})
            elif "/preupload/" in path:
                files = [
                    {
                        "path": one["path"], "shouldIgnore": False,
                        "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                    }
                    for one in json.loads(body)["files"]
                ]  # fmt: skip
                self._send(200, {"files": files})
            elif path.endswith("/info/lfs/objects/batch"):
                wanted = json.loads(body)["objects"]
                objects = [{**one, "actions": {"upload": {"href": f"{hub.url}/large/{one['oid']}"}}} for one in wanted]
                self._send(200, {"transfer": "basic", "objects": objects})
            elif "/commit/" in path:
                for line in map(json.loads, body.decode().splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        hub.files[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        hub.files[value["path"]] = hub.large[value["oid"]]
                commit = {
                    "commitUrl": f"{hub.url}/{'/'.join(path.split('/')[3:5])}/commit/{'0' * 40}",
                    "commitOid": "0" * 40,
                }
                self._send(200, {**commit, "success": True})
            else:
                hub.strange.append(f"POST {self.path}")
                self._send(404, {"error": "no such thing"})

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", "0")))
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def _send(self, status: int, answer: dict[str, Any]) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        hub = Hub(f"http://127.0.0.1:{server.server_address[1]}", token, refuses)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
