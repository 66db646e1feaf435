"""`stepdpo chat --web`: one page on loopback, and one address that it posts questions to. Nothing else is served.

What keeps others out: the socket is bound to 127.0.0.1; a request must name this machine as its host, so that no
foreign name which was pointed here is answered; a question must come from the page itself, and bring the token that the
terminal printed. It stands behind the # of the address, which browsers send to nobody.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from queue import Empty, Full
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit

from stepdpo.cli.chat_asked import Asked, Questions
from stepdpo.cli.chat_commands import Commands
from stepdpo.cli.chat_display import note
from stepdpo.cli.chat_session import Session
from stepdpo.cli.job_result import ExitCode
from stepdpo.core.errors import UserError

LOOPBACK = "127.0.0.1"
HOSTS = frozenset({LOOPBACK, "localhost"})
"""Names under which this machine knows itself. Any port: one that ssh forwards may be another."""
LONGEST = 64 * 1024
"""Bytes of a question, JSON around it included."""
PATIENCE = 30.0
"""Seconds that a browser has to send its request, or to take the next piece of an answer."""
HEARTBEAT = 1.0
"""Seconds between two signs of life to a browser that waits: by them it is noticed that it has gone."""
PAGE = (Path(__file__).parent / "chat.html").read_text(encoding="utf-8")


def _hashes(tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in found)


HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_hashes('script')}; style-src {_hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def serve(session: Session, commands: Commands, port: int) -> int:
    """Answer what the page asks until Ctrl-C; the exit code. UserError for a port that cannot be had."""
    questions = Questions()
    try:
        server = Server(port, questions)
    except (OSError, OverflowError) as error:
        raise UserError(f"port={port}: cannot be had ({error}); port=0 takes a free one") from error
    with server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        note(f"open {server.url}\nonly this machine can; whoever has the address can ask. Ctrl-C ends it")
        try:
            while True:
                questions.answer_next(session, commands)
        except KeyboardInterrupt:
            note("ended")
            return ExitCode.OK
        finally:
            server.shutdown()


class Server(ThreadingMixIn, TCPServer):
    """Takes questions in, in threads of their own, and hands on what is said of them."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 32

    def __init__(self, port: int, questions: Questions) -> None:
        """Raises OSError where the port cannot be had."""
        self.questions = questions
        self.token = secrets.token_urlsafe(24)
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def url(self) -> str:
        """What to open, token and all."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/#{self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone away is no news."""


class _Refused(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = PATIENCE

    def do_GET(self) -> None:
        try:
            self._must_be_meant()
            if self.path != "/":
                raise _Refused(404, "there is one page, and it is /")
            self._send(200, "text/html; charset=utf-8", PAGE.encode())
        except _Refused as refused:
            self._refuse(refused)

    def do_POST(self) -> None:
        try:
            self._must_be_meant()
            if self.path != "/ask":
                raise _Refused(404, "questions are posted to /ask")
            self._must_be_ours()
            asked = self.server.questions.put(self._question())
        except _Refused as refused:
            self._refuse(refused)
        except Full:
            self._refuse(_Refused(503, "too many questions are waiting"))
        else:
            self._answer(asked)

    def _must_be_meant(self) -> None:
        """Refused unless the request names this machine as its host, once."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or _host_of(hosts[0]) not in HOSTS:
            raise _Refused(421, "this is another host: open the address that `stepdpo chat --web` printed")

    def _must_be_ours(self) -> None:
        """Refused unless the request comes from our own page, with the token."""
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site")
        if (origin is not None and origin != f"http://{self.headers['Host']}") or site not in (None, "same-origin"):
            raise _Refused(403, "questions are taken from this server's own page alone")
        given = self.headers.get("Authorization", "").encode("utf-8", "replace")
        if not secrets.compare_digest(given, f"Bearer {self.server.token}".encode()):
            raise _Refused(403, "no token: open the address that `stepdpo chat --web` printed, with all after its #")
        if self.headers.get_content_type() != "application/json":
            raise _Refused(415, "a question is sent as application/json")

    def _question(self) -> str:
        size = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,9}", size):
            raise _Refused(411, "its length must be told")
        if int(size) > LONGEST:
            raise _Refused(413, f"a question has at most {LONGEST:,} bytes")
        try:
            content = json.loads(self.rfile.read(int(size)))
        except (ValueError, RecursionError) as error:
            raise _Refused(400, "this is no JSON") from error
        question = content.get("question") if isinstance(content, dict) else None
        if not isinstance(question, str) or not question.strip():
            raise _Refused(400, "`question` must be a text that is not empty")
        return question.strip()

    def _answer(self, asked: Asked) -> None:
        """One JSON object a line, as it comes."""
        try:
            self._begin(200, "application/x-ndjson; charset=utf-8")
            for event in _events(asked):
                self.wfile.write((json.dumps(event) if event else "").encode() + b"\n")
                self.wfile.flush()
        except OSError:
            asked.gone.set()

    def _refuse(self, refused: _Refused) -> None:
        self._send(refused.status, "application/json", json.dumps({"error": str(refused)}).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self._begin(status, kind, {"Content-Length": str(len(body))})
        self.wfile.write(body)

    def _begin(self, status: int, kind: str, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def version_string(self) -> str:
        return "stepdpo"

    def log_message(self, format: str, *args: Any) -> None:
        """What was asked is on the page; a line a request would say nothing more."""


def _host_of(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port  # ValueError where it is none
    except ValueError:
        return None
    plain = f"{parts.hostname}:{port}" if port is not None else parts.hostname
    return parts.hostname if host.lower() == plain else None


def _events(asked: Asked) -> Iterator[dict[str, Any]]:
    """What is said of a question, to the last; an empty one every so often while nothing is."""
    while True:
        try:
            event = asked.events.get(timeout=HEARTBEAT)
        except Empty:
            yield {}
            continue
        if event is None:
            return
        yield event
