"""The client against a real server that fails, stalls and lies. No time is measured; settings are small."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.servers import RESET, STALL, Fault, Served, serving, texts

from stepdpo.core.errors import Outage, UserError
from stepdpo.generation.client.client import Client, RequestRefused, connect
from stepdpo.generation.client.config import Server
from stepdpo.generation.client.transcript import Exchange, Transcript

KEY = "sk-CANARY0123456789abcdef"
BODY = {"prompt": "x", "max_tokens": 1}


def echo(endpoint: str, request: dict[str, Any]) -> dict[str, Any]:
    return texts(str(request["prompt"]).upper())


def text(reply: dict[str, Any]) -> str:
    if not reply.get("choices"):
        raise ValueError("an answer without choices")
    return str(reply["choices"][0]["text"])


@contextmanager
def opened(url: str, **settings: Any) -> Iterator[Client]:
    given = {"model": "tiny", "timeout": 30.0, "retries": 3, "backoff": 0.001, "api_key_env": "MY_KEY", **settings}
    with connect(Server(url, **given), "sampler.server") as client:
        yield client


def ask(client: Client, *prompts: str) -> list[str]:
    async def one(prompt: str) -> str:
        return await client.request(False, {**BODY, "prompt": prompt}, {}, text)

    return client.each(one, prompts)


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(echo) as found:
        yield found


PASSING = {
    "500": Fault(500, "broken"),
    "503 in HTML": Fault(503, "<html>", {"Content-Type": "text/html"}),
    "429 with Retry-After": Fault(429, "{}", {"Retry-After": "0.01"}),
    "408": Fault(408, "{}"),
    "409": Fault(409, "{}"),
    "reset": RESET,
    "not JSON": Fault(200, '{"choices": ['),
    "HTML": Fault(200, "<html>hello</html>", {"Content-Type": "text/html"}),
    "NaN": Fault(200, '{"choices": [{"text": NaN}]}'),
    "no object": Fault(200, "[1, 2]"),
    "no choices": Fault(200, '{"choices": []}'),
    "null": Fault(200, "null"),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_passes_is_repeated(served: Served, fault: str | Fault) -> None:
    served.faults.extend([fault, fault])
    with opened(served.url) as client:
        assert ask(client, "hello") == ["HELLO"]
        assert client.counts == {
            "requests": 3, "retries": 2, "failures": 2, "prompt_tokens": 5, "completion_tokens": 9,
        }  # fmt: skip


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_does_not_pass_ends_in_one_line(served: Served, fault: str | Fault) -> None:
    served.always = fault
    with opened(served.url) as client, pytest.raises(Outage, match=r"^http://127.0.0.1:\d+/v1: .*\(tried 4 times\)$"):
        ask(client, "hello")
    assert len(served.asked) == 4


def test_a_server_that_stalls(served: Served) -> None:
    """The first request never gets an answer; further ones may be slow on a busy machine."""
    served.faults.append(STALL)
    with opened(served.url, timeout=1.0, retries=30) as client:
        assert ask(client, "hello") == ["HELLO"]
        assert client.counts["failures"] >= 1
    served.always = STALL
    with opened(served.url, timeout=0.05, retries=1) as client, pytest.raises(Outage, match=r"no answer within 0.05 s"):
        ask(client, "hello")


def test_answers_come_in_order_and_so_many_at_a_time(served: Served) -> None:
    served.faults.extend(PASSING.values())
    prompts = [f"p{i}" for i in range(40)]
    with opened(served.url, concurrency=3, retries=12) as client:
        assert ask(client, *prompts) == [prompt.upper() for prompt in prompts]
    assert 1 <= served.most <= 3


def test_no_server_at_all() -> None:
    line = r"^sampler.server: http://127.0.0.1:1/v1: no connection \(tried 4 times\)$"
    with pytest.raises(UserError, match=line), opened("http://127.0.0.1:1/v1"):
        pass
    nowhere = Server("http://127.0.0.1:1/v1", "tiny", retries=0)
    with connect(nowhere, "judge.server", optional=True) as client, pytest.raises(Outage, match="no connection"):
        ask(client, "hello")


def test_the_model_is_what_the_server_lists(served: Served) -> None:
    served.models = ({"id": "one", "max_model_len": 512},)
    with opened(served.url, model=None) as client:
        assert (client.model, client.context) == ("one", 512)
        ask(client, "hello")
    assert served.asked[0][1]["model"] == "one"
    served.models = ({"id": "one"}, {"id": "two"})
    line = r"sampler.server.model must be given: the server lists one, two"
    with pytest.raises(UserError, match=line), opened(served.url, model=None):
        pass


@pytest.mark.parametrize("status", [404, 405, 500])
def test_a_server_without_a_list_of_models(served: Served, status: int) -> None:
    served.lists = Fault(status, "no")
    with opened(served.url) as client:
        assert ask(client, "hello") == ["HELLO"]
    with pytest.raises(UserError, match=f"status {status}"), opened(served.url, model=None):
        pass


def test_a_model_that_is_not_there(served: Served) -> None:
    served.models = ({"id": "qwen2-7b"},)
    served.always = Fault(404, json.dumps({"error": {"message": "no such model"}}))
    with opened(served.url, model="qwen2-8b") as client, pytest.raises(UserError, match="did you mean 'qwen2-7b'"):
        ask(client, "hello")


def test_a_bad_request_is_not_repeated(served: Served) -> None:
    served.always = Fault(400, json.dumps({"error": {"message": "top_p must be below 1"}}))
    with opened(served.url) as client, pytest.raises(RequestRefused, match="top_p must be below 1"):
        ask(client, "hello")
    assert len(served.asked) == 1


@pytest.mark.parametrize(("key", "words"), [(KEY, "refuses the key in MY_KEY"), ("", "wants a key")])
def test_a_wrong_key(monkeypatch: pytest.MonkeyPatch, key: str, words: str) -> None:
    """The server repeats what it was given, as some do."""
    monkeypatch.setenv("MY_KEY", key)
    with serving(echo, key="another") as served, pytest.raises(UserError, match=words) as caught, opened(served.url):
        pass
    assert "CANARY" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_that_is_revoked_keeps_what_was_made(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    served.key = KEY
    with opened(served.url) as client:
        assert ask(client, "hello") == ["HELLO"]
        served.key = "another"
        with pytest.raises(Outage, match="refuses the key"):
            ask(client, "hello")


def test_the_log_has_everything_but_the_key(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    served.key = KEY
    served.faults.extend([Fault(200, json.dumps({"choices": [], "you are": f"Bearer {KEY}"})), Fault(500, KEY)])
    path = tmp_path / "exchanges.jsonl"
    with Transcript.opened(path, "MY_KEY") as log:
        with connect(Server(served.url, "tiny", "MY_KEY", backoff=0.0), "judge.server", record=log) as client:
            assert ask(client, f"my key is {KEY}") == [f"MY KEY IS {KEY.upper()}"]
        assert log.totals == client.counts
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["attempt"], line["error"]) for line in lines] == [
        (0, "an answer without choices"), (1, "status 500"), (2, ""),
    ]  # fmt: skip
    assert lines[2]["request"]["prompt"] == "my key is ***"
    assert lines[2]["reply"]["choices"][0]["text"].startswith("MY KEY")
    assert KEY not in path.read_text()
    assert "uthorization" not in path.read_text()


def test_the_log_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "exchanges.jsonl"
    exchange = Exchange({"prompt": "ä"}, texts("x"), "", 0, 0.5)
    with Transcript.opened(path, "MY_KEY") as log:
        log(exchange)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    with Transcript.opened(path, "MY_KEY") as log:
        log(exchange)
        assert log.totals["completion_tokens"] == 18
    assert path.read_bytes() == whole + whole
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(UserError, match=r"exchanges.jsonl:1"), Transcript.opened(path, "MY_KEY"):
        pass


def test_what_cannot_be_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "CANARY\nbroken")
    with pytest.raises(UserError, match="odd characters") as caught, opened("http://127.0.0.1:1/v1"):
        pass
    assert "CANARY" not in str(caught.value)


def test_a_key_with_a_line_break_behind_it(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY + "\n")
    served.key = KEY
    with opened(served.url) as client:
        assert ask(client, "hello") == ["HELLO"]


@pytest.mark.parametrize(
    "settings", [{"url": "localhost:8000"}, {"concurrency": 0}, {"retries": -1}, {"timeout": 0.0}, {"backoff": -1.0}]
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Server(**settings)


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"stepdpo\[openai\]"), connect(Server(), "sampler.server"):
        pass
    assert os.environ.get("MY_KEY") is None
