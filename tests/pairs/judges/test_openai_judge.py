"""judge=openai against a real server: right verdicts, nonsense, silence, and going on afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.constructions import SMALL, composed
from support.judged import Judged
from support.scripted import ALL, LONG, TEMPLATE, Scripted, opened, spoil
from support.servers import RESET, STALL, Fault, said, serving

from stepdpo.core.errors import Outage, UserError
from stepdpo.core.steps import split_steps
from stepdpo.core.types import Problem
from stepdpo.generation.client.config import Server
from stepdpo.pairs.build import build_pairs
from stepdpo.pairs.config import PairsConfig
from stepdpo.pairs.judges.openai import OpenAIJudge, judge_message
from stepdpo.pairs.solutions import Solution

ASKED = [p for p in ALL if p.meta["steps"] >= 3][:6]
KEY = "sk-CANARY0123456789abcdef"


@dataclass(frozen=True)
class Writing:
    """Opens a Scripted sampler: every problem's second step is wrong."""

    asked: tuple[Problem, ...] = tuple(ASKED)

    @contextmanager
    def open(self, model: Any) -> Iterator[Scripted]:
        yield Scripted({opened(p): ["\n" + spoil(p, 1)] for p in self.asked})


@dataclass(frozen=True)
class These:
    """A task of exactly these problems."""

    name: str = "these"
    split: str = "train"
    limit: int | None = None
    checker: Any = None

    def problems(self) -> list[Problem]:
        return list(ASKED)


def right(endpoint: str, asked: dict[str, Any]) -> dict[str, Any]:
    """A judge that compares with the reference it is shown."""
    (message,) = asked["messages"]
    steps = [re.findall(r"^Step \d+: (.*)$", part, re.M) for part in message["content"].split("Student's solution:")]
    assert len(steps[0]) == len(steps[1]) >= 3
    labels = ["correct" if gold == given else "incorrect" for gold, given in zip(*steps, strict=True)]
    line = "; ".join(f"Step {i}: {label}" for i, label in enumerate(labels, start=1))
    return said(f"I looked at it.\nFinal decision: {line}")


def spec(url: str, **settings: Any) -> PairsConfig:
    server = {"timeout": 30.0, "retries": 2, "backoff": 0.001, "model": "big", **settings.pop("server", {})}
    judge = OpenAIJudge(Server(url, **server), **settings)
    return replace(
        composed("n=1"), model=SMALL, task=These(), template=TEMPLATE, sampler=Writing(), pairs=Judged(), judge=judge
    )


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_message_shows_problem_reference_and_numbered_steps() -> None:
    head, steps = split_steps(spoil(LONG, 1))
    odd = tuple(step.replace("Step 2:", "Step 7:") for step in steps)
    text = judge_message(LONG, Solution("s0", head, odd, False), show_reference=True)
    assert LONG.question in text
    assert LONG.solution in text
    assert f"Step 2: {steps[1].partition(':')[2].strip()}" in text
    assert "Step 7:" not in text
    hidden = judge_message(LONG, Solution("s0", head, odd, False), show_reference=False)
    assert LONG.solution not in hidden
    assert "eference" not in hidden
    answer = judge_message(replace(LONG, solution="", answers=("7",)), Solution("s0", head, odd, False), True)
    assert "The answer is 7." in answer


def test_a_good_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second step is found, through failures; what it cost is written down, and no key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(right, key=KEY) as served:
        served.faults.extend([RESET, Fault(500, KEY), Fault(429, "", {"Retry-After": "0"}), Fault(200, "<html>")])
        counts = build_pairs(spec(served.url, server={"retries": 9}), tmp_path)
    assert (counts["pairs"], counts["judged"]) == (6, 6)
    assert {row["meta"]["step"] for row in rows(tmp_path / "preferences.jsonl")} == {1}
    judge = json.loads((tmp_path / "summary.json").read_text())["judge"]
    assert (judge["model"], judge["requests"], judge["retries"], judge["failures"]) == ("big", 10, 4, 4)
    assert (judge["prompt_tokens"], judge["completion_tokens"]) == (30, 54)
    assert len(rows(tmp_path / "exchanges.jsonl")) == 10
    for path in tmp_path.iterdir():
        assert "CANARY" not in path.read_text(), path
    assert "CANARY" not in "".join(capsys.readouterr())


def some_nonsense(reply: str) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """A judge that fails on the first two problems."""

    def answer(endpoint: str, asked: dict[str, Any]) -> dict[str, Any]:
        bad = any(p.question in asked["messages"][0]["content"] for p in ASKED[:2])
        return said(reply) if bad else right(endpoint, asked)

    return answer


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I do not know.", "judge: no decision"),
        ("Final decision: Step 1: correct; Step 77: incorrect", "judge: a step that is not there"),
    ],
)
def test_nonsense_is_kept_and_asked_again(tmp_path: Path, reply: str, reason: str) -> None:
    """Twice at once, and once more by resume=true, which finds the judge sober."""
    with serving(some_nonsense(reply)) as served:
        counts = build_pairs(spec(served.url), tmp_path)
        assert len(served.asked) == 4 + 2 * 2
        second = served.asked[-1][1]["messages"][0]["content"]
        assert "could not be read" in second
        assert counts["pairs"] == 4
        first = (tmp_path / "preferences.jsonl").read_bytes()
        kept = rows(tmp_path / "quarantine.jsonl")
        assert [(row["problem"], row["reason"], row["answer"]) for row in kept] == [
            (p.id, reason, reply) for p in ASKED[:2]
        ]
        assert not (tmp_path / "summary.json").exists()
        again = build_pairs(spec(served.url), tmp_path, resume=True)
        assert again["pairs"] == 4
        served.key = "another"
        with pytest.raises(UserError):
            build_pairs(spec(served.url), tmp_path, resume=True)
        assert (tmp_path / "preferences.jsonl").read_bytes() == first
        served.key = ""
    with serving(right) as served:
        whole = build_pairs(spec(served.url), tmp_path, resume=True)
        assert len(served.asked) == 2
    assert whole["pairs"] == 6
    made = rows(tmp_path / "preferences.jsonl")
    assert [row["question"] for row in made] == [p.question for p in ASKED]  # the late ones at their places
    assert made[2:] == list(map(json.loads, first.splitlines()))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["outcomes"] == {"pairs": 6}
    assert summary["judge"]["requests"] == 8 + 4 + 2
    assert not (tmp_path / "summary.partial.json").exists()


@pytest.mark.parametrize("fault", [STALL, RESET, Fault(500), Fault(200, "{}")])
def test_a_judge_that_does_not_answer(tmp_path: Path, fault: str | Fault) -> None:
    with serving(right, always=fault) as served:
        given = spec(served.url, server={"timeout": 0.2, "retries": 1})
        with pytest.raises(Outage, match=r"no pair came of it.*6 problems.*resume=true"):
            build_pairs(given, tmp_path)
        assert {row["reason"] for row in rows(tmp_path / "quarantine.jsonl")} == {"judge: no answer"}
        served.always = None
        assert build_pairs(spec(served.url), tmp_path, resume=True)["pairs"] == 6


def test_a_judge_that_is_not_there_and_comes_back(tmp_path: Path) -> None:
    """On the same port."""
    with serving(right) as served:
        url = served.url
        build_pairs(spec(url), tmp_path / "whole")
    with pytest.raises(Outage, match=r"quarantine.jsonl"):
        build_pairs(spec(url), tmp_path / "run")
    with serving(right, port=int(url.split(":")[2].split("/")[0])):
        build_pairs(spec(url), tmp_path / "run", resume=True)
    whole, later = ((tmp_path / name / "preferences.jsonl").read_bytes() for name in ("whole", "run"))
    assert whole == later


def test_a_request_that_the_judge_refuses(tmp_path: Path) -> None:
    refusal = Fault(400, json.dumps({"error": {"message": "max_tokens is not supported"}}))
    with serving(right) as served:
        served.faults.append(refusal)
        build_pairs(spec(served.url, server={"concurrency": 1}), tmp_path)
    (row,) = rows(tmp_path / "quarantine.jsonl")
    assert row["reason"] == "judge: request refused"
    assert "max_tokens is not supported" in row["answer"]


def test_a_wrong_key_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(right, key="another") as served, pytest.raises(UserError, match="refuses the key in OPENAI_API_KEY"):
        build_pairs(spec(served.url), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_sent(tmp_path: Path) -> None:
    with serving(right) as served:
        judge = spec(served.url, temperature=0.5, max_tokens=None, extra={"reasoning_effort": "low"}).judge
        with judge.open(tmp_path) as ask_judge:
            message = judge_message(LONG, Solution("s0", *_parts(LONG), False), True)
            ask_judge([message])
        (_, asked) = served.asked[0]
    assert asked == {
        "model": "big", "messages": [{"role": "user", "content": message}], "temperature": 0.5,
        "reasoning_effort": "low",
    }  # fmt: skip


def _parts(problem: Problem) -> tuple[str, tuple[str, ...]]:
    head, steps = split_steps(problem.solution)
    return head, tuple(steps)
