"""A real HTTP server on loopback: it answers as OpenAI-compatible servers do, and fails, stalls and lies when told."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from stepdpo.core.types import Sampling
from stepdpo.generation.transformers import LocalSampler

Answer = Callable[[str, dict[str, Any]], dict[str, Any]]
"""(endpoint, request) -> reply."""
RESET, STALL = "reset", "stall"


@dataclass
class Fault:
    """What a request meets instead of an answer."""

    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Served:
    """A running server, what it was asked, and what it will do to the next requests."""

    url: str
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    faults: deque[str | Fault] = field(default_factory=deque)
    always: str | Fault | None = None
    """Happens to every request."""
    key: str = ""
    """Demanded, where given."""
    models: tuple[dict[str, Any], ...] = ({"id": "tiny"},)
    lists: Fault | None = None
    """Instead of the list of models."""
    most: int = 0
    """Requests that were under way together."""


@contextmanager
def serving(answer: Answer, port: int = 0, **settings: Any) -> Iterator[Served]:
    """Serve until the block ends."""
    release, lock, under_way = threading.Event(), threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            if not self._refused():
                self._send(served.lists or Fault(body=json.dumps({"data": list(served.models)})))

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self._refused():
                return
            endpoint = self.path.removeprefix("/v1/")
            with lock:
                served.asked.append((endpoint, request))
                under_way[0] += 1
                served.most = max(served.most, under_way[0])
                fault = served.always or (served.faults.popleft() if served.faults else None)
            try:
                self._answer(endpoint, request, fault)
            finally:
                with lock:
                    under_way[0] -= 1

        def _answer(self, endpoint: str, request: dict[str, Any], fault: str | Fault | None) -> None:
            if fault == STALL:
                release.wait()
            elif fault == RESET:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
            elif isinstance(fault, Fault):
                self._send(fault)
            else:
                self._send(Fault(body=json.dumps(answer(endpoint, request))))

        def _refused(self) -> bool:
            given = self.headers.get("Authorization", "")
            if not served.key or given == f"Bearer {served.key}":
                return False
            self._send(Fault(401, json.dumps({"error": {"message": f"Incorrect API key provided: {given}"}})))
            return True

        def _send(self, fault: Fault) -> None:
            body = fault.body.encode()
            self.send_response(fault.status)
            for name, value in {"Content-Type": "application/json", **fault.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            """A client that has gone away is no news."""

    with Quiet(("127.0.0.1", port), Handler) as server:
        served = Served(f"http://127.0.0.1:{server.server_address[1]}/v1", **settings)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            release.set()
            server.shutdown()
            thread.join()


def texts(*choices: str, finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A reply of /v1/completions; nine tokens a choice."""
    entries = [{"index": i, "text": text, "finish_reason": finish, **more} for i, text in enumerate(choices)]
    return {"object": "text_completion", "choices": entries, "usage": _usage(9 * len(choices))}


def said(text: str) -> dict[str, Any]:
    """A reply of /v1/chat/completions."""
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": _usage(9)}


def _usage(completion: int) -> dict[str, int]:
    return {"prompt_tokens": 5, "completion_tokens": completion, "total_tokens": 5 + completion}


def written_by(sampler: LocalSampler) -> Answer:
    """What a model writes: /v1/completions with n, stop, seed and echo, one request at a time."""
    lock = threading.Lock()

    def answer(endpoint: str, request: dict[str, Any]) -> dict[str, Any]:
        assert endpoint == "completions"
        if request.get("echo"):
            return _echo(sampler, request)
        params = Sampling(
            request.get("n", 1), request["temperature"], request.get("top_p", 1.0), request["max_tokens"],
            tuple(request.get("stop", ())), request.get("seed", 0),
        )  # fmt: skip
        with lock:
            (found,) = sampler.sample([request["prompt"]], params)
        entries = [
            {
                "index": number, "text": c.text, "finish_reason": "length" if c.finish == "length" else "stop",
                "stop_reason": request["stop"][0] if c.finish == "stop" else None,
            }
            for number, c in enumerate(found)
        ]  # fmt: skip
        return {"choices": entries, "usage": _usage(sum(c.tokens for c in found))}

    return answer


def _echo(sampler: LocalSampler, request: dict[str, Any]) -> dict[str, Any]:
    ids = torch.tensor([request["prompt"]])
    with torch.inference_mode():
        logps = sampler.model(ids).logits[0].double().log_softmax(-1)
    told = [None, *logps[:-1].gather(-1, ids[0, 1:, None])[:, 0].tolist(), -1.0]
    return {"choices": [{"text": "", "finish_reason": "length", "logprobs": {"token_logprobs": told}}]}
