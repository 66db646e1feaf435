"""What was sampled for a problem is not sampled again."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from stepdpo.core.types import Completion
from stepdpo.pairs.engine.requests import AskJudge, Generate, GradeAnswers, JudgeFailed, Request
from stepdpo.pairs.engine.sample_cache import SampleCache

ONE, OTHER = Generate(("p",), 2), Generate(("p",), 2, again=1)


def answered(requests: Generator[Request, Any, Any], replies: list[Any]) -> tuple[Any, list[Request]]:
    """What a generator returns, and what it requested of the outside."""
    asked: list[Request] = []
    reply: Any = None
    while True:
        try:
            asked.append(requests.throw(reply) if isinstance(reply, JudgeFailed) else requests.send(reply))
        except StopIteration as end:
            return end.value, asked
        reply = replies.pop(0)


def completions(*texts: str) -> list[list[Completion]]:
    return [[Completion(text, 1, "eos") for text in texts]]


def requesting(*requests: Request) -> Generator[Request, Any, list[Any]]:
    replies = []
    for request in requests:
        replies.append((yield request))
    return replies


def test_a_request_is_passed_on_once() -> None:
    cache = SampleCache()
    first, second = completions("a", "b"), completions("c", "d")
    replies, asked = answered(cache.run(requesting(ONE, OTHER, ONE)), [first, second])
    assert (replies, asked) == ([first, second, first], [ONE, OTHER])
    assert answered(cache.run(requesting(OTHER)), []) == ([second], [])


def test_only_samples_are_cached() -> None:
    grade = GradeAnswers(("x",))
    replies, asked = answered(SampleCache().run(requesting(grade, grade)), [["g1"], ["g2"]])
    assert (replies, asked) == ([["g1"], ["g2"]], [grade, grade])


def test_what_was_drawn_under_the_same_settings() -> None:
    cache = SampleCache()
    warm = Generate(("p",), 1, temperature=0.1)
    answered(cache.run(requesting(ONE, OTHER, warm)), [completions("a", "b"), completions("c", "d"), completions("e")])
    samples, times = cache.samples(Generate(("p",), 20))
    assert ([completion.text for completion in samples], times) == (["a", "b", "c", "d"], 2)
    assert [completion.text for completion in cache.samples(warm)[0]] == ["e"]
    assert cache.samples(Generate(("q",), 20)) == ([], 0)


def test_the_judge_hears_that_no_reply_came() -> None:
    def patient() -> Generator[Request, Any, str]:
        try:
            yield AskJudge("a")
        except JudgeFailed as error:
            return error.reason + (yield AskJudge("b"))
        return "never"

    assert answered(SampleCache().run(patient()), [JudgeFailed("down"), "!"])[0] == "down!"
    with pytest.raises(JudgeFailed, match="down"):
        answered(SampleCache().run(requesting(AskJudge("a"))), [JudgeFailed("down")])
