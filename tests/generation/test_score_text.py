"""Log-probabilities of written and of given texts, against a plain forward pass over the whole text."""

from __future__ import annotations

from math import inf, isinf
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from stepdpo.core.types import Sampling
from stepdpo.generation import score_text as weighing
from stepdpo.generation.decode_loop import StopConditions, generate
from stepdpo.generation.score_text import ScoredText, score_texts, scored_texts
from stepdpo.generation.seeding import seeds
from stepdpo.generation.transformers import LocalSampler, _uniforms
from stepdpo.models.load import Fresh
from stepdpo.tinymath.problems import problems

ASKED = problems("test", 6)
PROMPTS = [f"<|im_start|>user\n{p.question}<|im_end|>\n<|im_start|>assistant\n" for p in ASKED]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return Fresh().tokenizer()


@pytest.fixture(scope="module")
def sampler(tokenizer: Any) -> LocalSampler:
    torch.manual_seed(5)
    config = Qwen2Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=len(tokenizer), max_position_embeddings=256, initializer_range=0.3, bos_token_id=None,
        eos_token_id=None, attn_implementation="sdpa",
    )  # fmt: skip
    return LocalSampler(Qwen2ForCausalLM(config).eval(), tokenizer, 100_000)


def plain(model: Any, ids: list[int], first: int) -> float:
    """One text, read as a whole: the sum of the log-probabilities of its tokens from `first` on."""
    with torch.inference_mode():
        logps_LV = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
    return sum(float(logps_LV[i - 1, ids[i]]) for i in range(max(1, first), len(ids)))


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def test_every_token_written_has_the_models_own_log_probability(sampler: LocalSampler, tokenizer: Any) -> None:
    """Sampled at another temperature and with top-p, in a batch of unequal prompts that rows leave early."""
    params = Sampling(n=2, temperature=0.7, top_p=0.9, max_tokens=12, logps=True)
    ids = [tokens_of(tokenizer, prompt) for prompt in PROMPTS]
    uniforms = np.random.default_rng(1).random((12, 12), dtype=np.float32)
    found = generate(sampler.model, ids, params, StopConditions(sampler.eos, (12, 3, 12, 5, 12, 1)), uniforms)
    assert [len(written.tokens) for written in found] == [12, 12, 3, 3, 12, 12, 5, 5, 12, 12, 1, 1]
    for number, written in enumerate(found):
        before = ids[number // 2]
        for at, logp in enumerate(written.logps):
            whole = before + written.tokens[: at + 1]
            assert logp == pytest.approx(plain(sampler.model, whole, len(whole) - 1), abs=1e-4)
        assert len(written.logps) == len(written.tokens)


def test_a_completion_carries_their_sum(sampler: LocalSampler, tokenizer: Any) -> None:
    """The same random numbers give the same tokens; their log-probabilities are added up."""
    params = Sampling(temperature=0.7, max_tokens=12, logps=True)
    ((completion,),) = sampler.sample(PROMPTS[:1], params)
    ids = tokens_of(tokenizer, PROMPTS[0])
    uniforms = _uniforms(list(seeds(PROMPTS[:1], 0, None)), params, 12)
    (written,) = generate(sampler.model, [ids], params, StopConditions(sampler.eos, (12,)), uniforms)
    assert completion.tokens == len(written.tokens) == 12
    assert completion.logp == pytest.approx(plain(sampler.model, ids + written.tokens, len(ids)), abs=1e-3)


def test_the_end_of_text_counts(sampler: LocalSampler, tokenizer: Any) -> None:
    """A model that ends at once: the log-probability is that of the end-of-text token alone."""
    (completion,) = _ending(sampler, tokenizer).sample(PROMPTS[:1], Sampling(max_tokens=5, logps=True))[0]
    assert (completion.text, completion.tokens, completion.finish) == ("", 1, "eos")
    ids = tokens_of(tokenizer, PROMPTS[0])
    expected = plain(_ending(sampler, tokenizer).model, [*ids, tokenizer.eos_token_id], len(ids))
    assert completion.logp == pytest.approx(expected, abs=1e-4)


def _ending(sampler: LocalSampler, tokenizer: Any) -> LocalSampler:
    """The same model with a head that likes the end of text best, wherever it stands."""

    class Ending:
        def __init__(self) -> None:
            self.inner, self.config, self.device = sampler.model, sampler.model.config, sampler.model.device

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            found = self.inner(*arguments, **options)
            found.logits = found.logits.clone()
            found.logits[..., tokenizer.eos_token_id] += 50.0
            return found

    return LocalSampler(Ending(), tokenizer, 100_000)


def test_a_stopped_completion_counts_up_to_the_end_of_its_stop_string(sampler: LocalSampler) -> None:
    """It has the log-probability of the same tokens written under a shorter limit and no stop string."""
    free = Sampling(temperature=1.0, max_tokens=24, seed=2, logps=True)
    (whole,) = sampler.sample(PROMPTS[:1], free)[0]
    stop = whole.text[len(whole.text) // 2 :][:3]
    (stopped,) = sampler.sample(
        PROMPTS[:1], Sampling(temperature=1.0, max_tokens=24, seed=2, stop=(stop,), logps=True)
    )[0]
    assert (stopped.finish, stopped.stop) == ("stop", stop)
    assert stopped.tokens < whole.tokens
    short = Sampling(temperature=1.0, max_tokens=stopped.tokens, seed=2, logps=True)
    (cut,) = sampler.sample(PROMPTS[:1], short)[0]
    assert cut.text.startswith(stopped.text + stop)
    assert stopped.logp == pytest.approx(cut.logp, abs=1e-4)


def test_unasked_there_is_none_and_the_text_is_the_same(sampler: LocalSampler) -> None:
    asked, unasked = (
        sampler.sample(PROMPTS, Sampling(temperature=1.0, max_tokens=12, logps=logps)) for logps in (True, False)
    )
    assert [c.text for (c,) in asked] == [c.text for (c,) in unasked]
    assert all(c.logp is None for (c,) in unasked)


@pytest.mark.parametrize("budget", [1, 150, 100_000])
def test_weights_are_those_of_a_plain_pass_over_the_text(sampler: LocalSampler, tokenizer: Any, budget: int) -> None:
    live = LocalSampler(sampler.model, tokenizer, budget)
    prompts = [prompt for prompt in PROMPTS for _ in range(2)]
    continuations = [text for problem in ASKED for text in (problem.solution, " A")]
    found = live.score(prompts, continuations)
    for prompt, continuation, nats in zip(prompts, continuations, found, strict=True):
        ids = tokens_of(tokenizer, prompt + continuation)
        assert nats == pytest.approx(plain(sampler.model, ids, len(tokens_of(tokenizer, prompt))), abs=1e-3)


def test_a_token_over_the_boundary_counts(tokenizer: Any) -> None:
    r"""After `...Step 1: ` the text ` The` is one token, which begins before the boundary and ends after it."""
    whole = tokens_of(tokenizer, "Step 1: The baskets")
    (text,) = scored_texts(["Step 1: "], ["The baskets"], tokenizer)
    assert text.ids == whole
    assert tokenizer.decode(whole[text.first :]) == " The baskets"


def test_texts_that_differ_in_their_last_token_are_read_once(
    sampler: LocalSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    logits = weighing._logits

    def counted(model: Any, rows: Any, last: int) -> Any:
        read.append(len(rows))
        return logits(model, rows, last)

    monkeypatch.setattr(weighing, "_logits", counted)
    found = score_texts(sampler.model, [ScoredText([5, 6, 7], 2), ScoredText([5, 6, 8], 2), ScoredText([5, 9], 1)], 100)
    assert read == [2]
    assert found == pytest.approx(
        [plain(sampler.model, ids, len(ids) - 1) for ids in ([5, 6, 7], [5, 6, 8], [5, 9])], abs=1e-4
    )


def test_nothing_to_weigh_and_no_room(sampler: LocalSampler) -> None:
    assert sampler.score([], []) == []
    assert sampler.score(PROMPTS[:1], [""]) == [0.0]
    nats = score_texts(sampler.model, [ScoredText([3] * 257, 256), ScoredText([3] * 258, 257)], 10_000)
    assert not isinf(nats[0])
    assert nats[1] == -inf
