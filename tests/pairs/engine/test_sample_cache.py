"""What was sampled for a problem is not sampled again."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from stepdpo.core.types import Completion
from stepdpo.pairs.engine.requests import AskJudge, Generate, GradeAnswers, JudgeFailed, Request
from stepdpo.pairs.engine.sample_cache import SampleCache

ONE, OTHER = Generate(("p",), 2), Generate(("p",), 2, again=1)


def answered(work: Generator[Request, Any, Any], replies: list[Any]) -> tuple[Any, list[Request]]:
    """What the work returns, and what it asked of the outside."""
    asked: list[Request] = []
    reply: Any = None
    while True:
        try:
            asked.append(work.throw(reply) if isinstance(reply, JudgeFailed) else work.send(reply))
        except StopIteration as end:
            return end.value, asked
        reply = replies.pop(0)


def completions(*texts: str) -> list[list[Completion]]:
    return [[Completion(text, 1, "eos") for text in texts]]


def asking(*asks: Request) -> Generator[Request, Any, list[Any]]:
    replies = []
    for ask in asks:
        replies.append((yield ask))
    return replies


def test_an_ask_is_passed_on_once() -> None:
    memory = SampleCache()
    first, second = completions("a", "b"), completions("c", "d")
    replies, asked = answered(memory.through(asking(ONE, OTHER, ONE)), [first, second])
    assert (replies, asked) == ([first, second, first], [ONE, OTHER])
    assert answered(memory.through(asking(OTHER)), []) == ([second], [])


def test_only_samples_are_remembered() -> None:
    mark = GradeAnswers(("x",))
    replies, asked = answered(SampleCache().through(asking(mark, mark)), [["g1"], ["g2"]])
    assert (replies, asked) == ([["g1"], ["g2"]], [mark, mark])


def test_what_was_drawn_under_the_same_settings() -> None:
    memory = SampleCache()
    warm = Generate(("p",), 1, temperature=0.1)
    answered(memory.through(asking(ONE, OTHER, warm)), [completions("a", "b"), completions("c", "d"), completions("e")])
    drawn, times = memory.drawn(Generate(("p",), 20))
    assert ([completion.text for completion in drawn], times) == (["a", "b", "c", "d"], 2)
    assert [completion.text for completion in memory.drawn(warm)[0]] == ["e"]
    assert memory.drawn(Generate(("q",), 20)) == ([], 0)


def test_the_work_hears_that_no_answer_came() -> None:
    def patient() -> Generator[Request, Any, str]:
        try:
            yield AskJudge("a")
        except JudgeFailed as error:
            return error.reason + (yield AskJudge("b"))
        return "never"

    assert answered(SampleCache().through(patient()), [JudgeFailed("down"), "!"])[0] == "down!"
    with pytest.raises(JudgeFailed, match="down"):
        answered(SampleCache().through(asking(AskJudge("a"))), [JudgeFailed("down")])
