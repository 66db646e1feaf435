"""Replies of servers as they are, read by hand."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.servers import texts

from stepdpo.core.types import Completion
from stepdpo.generation.client.transcript import costs
from stepdpo.generation.openai_responses import TOO_LONG, apportion, completions, prompt_logps
from stepdpo.pairs.judges.openai import reply_text

STOP = ("\nStep ",)


def one(reply: dict[str, Any], *stop: str) -> Completion:
    (found,) = completions(reply, stop)
    return found


def chat(content: Any, finish: str = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": finish, **more}]}


@pytest.mark.parametrize(
    ("said", "stop", "finish"),
    [
        ({"finish": "stop"}, (), "eos"),
        ({"finish": "length"}, (), "length"),
        ({"finish": "length"}, STOP, "length"),
        ({"finish": "content_filter"}, (), "length"),
        ({"finish": "eos_token"}, STOP, "eos"),  # TGI
        ({"finish": "stop_sequence"}, STOP, "stop"),
        ({"finish": "stop", "stop_reason": None}, STOP, "eos"),  # vLLM
        ({"finish": "stop", "stop_reason": 151645}, STOP, "eos"),
        ({"finish": "stop", "stop_reason": "\nStep "}, STOP, "stop"),
        ({"finish": "stop", "matched_stop": 2}, STOP, "eos"),  # SGLang
        ({"finish": "stop", "matched_stop": "\nStep "}, STOP, "stop"),
        ({"finish": "stop"}, STOP, "stop"),  # not said which
    ],
)
def test_how_a_response_ended(said: dict[str, Any], stop: tuple[str, ...], finish: str) -> None:
    assert one(texts("abc", **said), *stop) == Completion("abc", 9, finish)


def test_a_stop_string_is_cut_off_where_the_server_leaves_it() -> None:
    found = one(texts(" is 4.\nStep 2: x\n\nQ"), "\n\n", "\nStep ")
    assert found == Completion(" is 4.", 9, "stop")


def test_a_chat() -> None:
    assert one(chat("hello")) == Completion("hello", 0, "eos")
    assert one(chat(None)) == Completion("", 0, "eos")


def test_the_tokens_of_a_reply_are_shared_out() -> None:
    found = completions({**texts("aaaa", "bb", ""), "usage": {"completion_tokens": 10}})
    assert [c.tokens for c in found] == [6, 4, 0]
    told = [{"text": "x", "finish_reason": "stop", "logprobs": {"token_logprobs": [-1.0] * n}} for n in (2, 3)]
    assert [c.tokens for c in completions({"choices": told})] == [2, 3]


@pytest.mark.parametrize(("total", "weights"), [(10, [4, 2, 0]), (0, [1, 1]), (7, [0, 0]), (1, [1, 1, 1]), (100, [3])])
def test_shares_sum_up(total: int, weights: list[int]) -> None:
    parts = apportion(total, weights)
    assert sum(parts) == total
    assert min(parts) >= 0


def test_log_probabilities() -> None:
    assert one(texts("ab", logprobs={"token_logprobs": [-0.5, -1.5]})).logp == -2.0
    assert one(chat("ab", logprobs={"content": [{"logprob": -0.5}, {"logprob": -0.25}]})).logp == -0.75
    assert one(texts("ab", logprobs=None)).logp is None
    for lie in (None, 10**400, float("nan"), float("-inf")):
        assert one(texts("ab", logprobs={"token_logprobs": [-0.5, lie]})).logp is None


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"choices": []},
        {"choices": {}},
        {"choices": [None]},
        {"choices": [{"finish_reason": "stop"}]},
        {"choices": [{"text": 3, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": ["a"]}, "finish_reason": "stop"}]},
        {"choices": [{"text": "a"}]},
        {"choices": [{"text": "a", "finish_reason": "error"}]},
        {"choices": [{"text": "a", "finish_reason": ["stop"]}]},
    ],
)
def test_lies(reply: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^an answer"):
        completions(reply)


def test_an_echoed_prompt() -> None:
    reply = {"choices": [{"text": "", "logprobs": {"token_logprobs": [None, -1.0, -2.0, -9.0]}}]}
    assert prompt_logps(reply, 3) == [None, -1.0, -2.0]
    for lie in ({}, {"choices": [{"logprobs": None}]}, {"choices": [{"logprobs": {"token_logprobs": [None, "a", 1]}}]}):
        with pytest.raises(ValueError, match=r"^an answer"):
            prompt_logps(lie, 3)
    with pytest.raises(ValueError, match=r"^an answer"):
        prompt_logps(reply, 5)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-9, 0) | st.sampled_from(["", "stop", "length", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "text", "message", "content", "finish_reason", "logprobs", "token_logprobs", "usage",
                 "completion_tokens", "logprob", "stop_reason"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["choices", "usage"]), ANYTHING) | st.builds(lambda e: {"choices": [e]}, ANYTHING)
)
def test_any_lie_is_either_read_or_named(reply: dict[str, Any]) -> None:
    for read in (lambda r: completions(r, STOP), lambda r: prompt_logps(r, 2), reply_text, lambda r: costs(0, "", r)):
        with suppress(ValueError):
            read(reply)


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 512 tokens. However, you requested 600 tokens.",
        "The input (600 tokens) is longer than the model's context length (512 tokens).",
        "`inputs` tokens + `max_new_tokens` must be <= 512. Given: 500 `inputs` tokens and 100 `max_new_tokens`",
        "prompt is too long",
    ],
)
def test_servers_say_that_a_prompt_is_too_long(words: str) -> None:
    assert TOO_LONG.search(words)
    assert not TOO_LONG.search("temperature must be a number")
