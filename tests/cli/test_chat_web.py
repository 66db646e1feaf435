"""`stepdpo chat --web`, a real server asked over HTTP: the page answers, and nobody else is let in."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from support.chats import QUESTIONS, Server, serving, valued

from stepdpo.cli import overrides
from stepdpo.cli.job_config import split
from stepdpo.core.config import build
from stepdpo.evaluation.evaluate import evaluate
from stepdpo.runtime.atomic_io import read_jsonl

ASKED = json.dumps({"question": "/about"}).encode()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: the miniature with a value head."""
    root = tmp_path_factory.mktemp("chat")
    valued(root / "runs" / "first" / "model")
    (root / "runs" / "first" / "config.yaml").write_text("{}")
    return root


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    with serving("first", "sampler.device=cpu", cwd=model) as one:
        yield one


def test_the_page_is_all_there_is(server: Server) -> None:
    with urlopen(f"http://{server.host}/") as reply:
        page = reply.read().decode()
    assert "<title>stepdpo chat</title>" in page
    assert server.token not in page
    for path in ("/chat.html", "/../main.py", "/etc/passwd", "/?x", "/ask", "http://evil.example/"):
        status, headers, body = server.request("GET", path)
        assert (status, set(json.loads(body))) == (404, {"error"})
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert "script-src 'sha256-" in reply.headers["Content-Security-Policy"]
    assert reply.headers["Cache-Control"] == "no-store"


def test_an_answer_is_that_of_an_evaluation(server: Server, model: Path) -> None:
    """Greedily, asked as the page asks; the pieces that come first are its beginning."""
    given = ["model=pretrained", f"model.path={model / 'runs/first/model'}", "task.limit=1", "sampler.device=cpu"]
    evaluate(build(split(overrides.check("eval", given, sweep=False))[1]), model / "evaluated")
    (row,) = read_jsonl(model / "evaluated" / "attempts.jsonl")
    request = Request(
        f"http://{server.host}/ask", json.dumps({"question": row["question"]}).encode(), headers=server.ours
    )
    with urlopen(request) as reply:
        events = [json.loads(line) for line in reply.read().splitlines() if line.strip()]
    *pieces, last = events
    assert "".join(event["text"] for event in pieces if event["kind"] == "text") == row["response"]
    (response,) = last["responses"]
    assert "".join(step["text"] for step in response["steps"]) == row["response"]
    assert (last["kind"], last["scorer"]) == ("answer", "value_head")
    assert all(0 <= step["worth"] <= 1 for step in response["steps"])
    assert all(abs(float(step["value"]) - step["worth"]) < 0.0051 for step in response["steps"])
    assert response["cut"] == (row["finish"] == "length")


def test_commands_and_mistakes(server: Server) -> None:
    def only(question: str) -> dict[str, Any]:
        (event,) = server.ask(question)
        return event

    assert "runs/first/model: greedy, values by value_head" in only("/about")["text"]
    assert only("/decode vot") == {
        "kind": "error", "text": "decode=vot: there is no such decode; did you mean 'vote'?",
    }  # fmt: skip
    assert only("/quit")["text"].startswith("Close this page")
    assert only("why " * 2000)["kind"] == "error"
    assert only("\ud800")["kind"] == "error"
    assert (
        "dvts trees=2 expand=2, values by value_head" in only("/decode dvts trees=2 expand=2 scorer=value_head")["text"]
    )
    *before, last = server.ask(QUESTIONS[0])
    drafts = [event for event in before if event["kind"] == "draft"]
    assert drafts[0]["of"] <= 4
    assert drafts[-1]["steps"][0]["value"]
    assert last["responses"][0]["steps"][0]["value"]
    assert only("/decode greedy scorer=none")["kind"] == "said"


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (421, {"Host": "evil.example"}),
        (421, {"Host": "evil.example:80"}),
        (421, {"Host": "127.0.0.1.evil.example"}),
        (421, {"Host": "user@127.0.0.1"}),
        (421, {"Host": "127.0.0.1:x"}),
        (421, {"Host": ""}),
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "http://127.0.0.1:1"}),
        (403, {"Origin": "null"}),
        (403, {"Sec-Fetch-Site": "cross-site"}),
        (403, {"Sec-Fetch-Site": "same-site"}),
        (403, {"Authorization": ""}),
        (403, {"Authorization": "Bearer x"}),
        (415, {"Content-Type": "text/plain"}),
        (415, {"Content-Type": "application/x-www-form-urlencoded"}),
        (411, {"Content-Length": "x"}),
        (413, {"Content-Length": "65537"}),
    ],
)
def test_strangers_are_refused(server: Server, status: int, headers: dict[str, str]) -> None:
    got, _, body = server.request("POST", "/ask", ASKED, {**server.ours, **headers})
    assert (got, set(json.loads(body))) == (status, {"error"})
    if "Host" in headers:
        assert server.request("GET", "/", headers=headers)[0] == status


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"question": 5}', b'{"question": " "}', b"\xff", b"[" * 60000, b'{"questions": "x"}']
)
def test_what_is_no_question(server: Server, body: bytes) -> None:
    status, _, reply = server.request("POST", "/ask", body, server.ours)
    assert (status, set(json.loads(reply))) == (400, {"error"})


def test_other_ways_of_asking(server: Server) -> None:
    """No other method is known, so no other page's preflight is ever answered; a forwarded port may be another."""
    for method in ("OPTIONS", "PUT", "DELETE", "HEAD"):
        status, headers, _ = server.request(method, "/ask", headers={"Origin": "http://evil.example"})
        assert status == 501
        assert not [name for name in headers if name.lower().startswith("access-control")]
    ours = {**server.ours, "Host": "localhost:9000", "Origin": "http://localhost:9000"}
    assert server.request("POST", "/ask", ASKED, ours)[0] == 200


def test_only_this_machine_is_listened_to(server: Server) -> None:
    found = subprocess.run(
        ["cat", "/proc/net/tcp", "/proc/net/tcp6"], capture_output=True, text=True, check=False
    ).stdout
    listening = [line.split()[1] for line in found.splitlines() if line.split()[3:4] == ["0A"]]
    assert [one for one in listening if one.endswith(f":{server.port:04X}")] == [f"0100007F:{server.port:04X}"]


def test_who_leaves_is_not_waited_for(server: Server) -> None:
    """A long answer whose reader goes away is given up, and the next question is answered."""
    server.ask("/decode sample n=600 max_tokens=400 temperature=2")
    body = json.dumps({"question": QUESTIONS[0]}).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in {**server.ours, "Host": server.host}.items())
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"POST /ask HTTP/1.0\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert connection.recv(15).startswith(b"HTTP/1.0 200")
    began = time.monotonic()
    said = server.ask("/decode greedy")
    assert said[-1]["kind"] == "said"
    assert time.monotonic() - began < 60
