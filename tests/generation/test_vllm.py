"""What of sampler=vllm needs no GPU: its absence, and the translation of settings and results.

tests/test_gpu.py runs it where CUDA and vLLM exist.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from stepdpo.core.errors import UserError
from stepdpo.core.types import Completion, Sampling
from stepdpo.generation.vllm import VllmSampler, completion, given_logp, sampling_params
from stepdpo.models.load import Fresh, Pretrained


def test_without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"stepdpo\[vllm\]"), VllmSampler().open(Pretrained(path="model")):
        pass


def test_a_model_without_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", sys)
    with pytest.raises(UserError, match="model=fresh"), VllmSampler().open(Fresh()):
        pass


def test_settings_of_a_prompt() -> None:
    assert sampling_params(Sampling(4, 0.8, 0.95, 100, ("\n\n",), 7, logps=True), room=60, seed=5) == {
        "n": 4, "temperature": 0.8, "top_p": 0.95, "max_tokens": 60, "stop": ["\n\n"], "seed": 5, "logprobs": 0,
    }  # fmt: skip
    greedy = sampling_params(Sampling(), room=512, seed=5)
    assert (greedy["seed"], greedy["stop"], greedy["logprobs"]) == (None, None, None)


@pytest.mark.parametrize(
    ("reason", "stopped_by", "finish"),
    [("stop", None, "eos"), ("stop", 151645, "eos"), ("stop", "\nStep ", "stop"), ("length", None, "length")],
)
def test_how_a_response_ended(reason: str, stopped_by: Any, finish: str) -> None:
    output = SimpleNamespace(
        text="ab", token_ids=[1, 2, 3], finish_reason=reason, stop_reason=stopped_by, cumulative_logprob=-2.5
    )
    assert completion(output, Sampling()) == Completion("ab", 3, finish)
    assert completion(output, Sampling(logps=True)).logp == -2.5


def test_a_response_that_was_given_up() -> None:
    output = SimpleNamespace(text="", token_ids=[], finish_reason="abort", stop_reason=None, cumulative_logprob=None)
    with pytest.raises(RuntimeError, match="abort"):
        completion(output, Sampling())


def test_the_tokens_that_count() -> None:
    """`ab|cd` where a token of `bc` straddles the boundary: it counts, as everywhere."""
    told = [None, {5: SimpleNamespace(logprob=-1.0)}, {6: SimpleNamespace(logprob=-2.0), 9: None}]
    assert given_logp([4, 5, 6], [1, 3, 4], 2, told) == -3.0
    assert given_logp([4, 5, 6], [1, 3, 4], 3, told) == -2.0
    assert given_logp([4, 5, 6], [1, 3, 4], 4, told) == 0.0


@pytest.mark.parametrize("settings", [{"tensor_parallel": 0}, {"memory": 0.0}, {"memory": 1.5}])
def test_settings_that_cannot_be_meant(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        VllmSampler(**settings)
