"""What decoders must have in common, with the shipped model of the miniature and its own tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stepdpo.core.package_data import packaged
from stepdpo.core.types import Prompt, Sampling
from stepdpo.generation.answering import Answering
from stepdpo.generation.decode_many import context_of, decode_many
from stepdpo.generation.decoded import Decoded
from stepdpo.generation.decoding.best_of_n import BestOfN
from stepdpo.generation.decoding.dvts import Dvts
from stepdpo.generation.decoding.greedy import Greedy
from stepdpo.generation.decoding.sample import Sample
from stepdpo.generation.decoding.step_beam import StepBeam
from stepdpo.generation.scorers.logprob import Logprob
from stepdpo.generation.transformers import LocalSampler, TransformersSampler
from stepdpo.models.load import Pretrained
from stepdpo.tinymath.problems import problems

MODEL = Pretrained(packaged("pkg://tinymath/model"))
PROMPTS = [f"<|im_start|>user\n{p.question}<|im_end|>\n<|im_start|>assistant\n" for p in problems("test", 4)]
SHORT = {"max_tokens": 200}


@pytest.fixture(scope="module")
def sampler() -> Iterator[LocalSampler]:
    with TransformersSampler(device="cpu", progress=False).open(MODEL) as opened:
        yield opened


def decode(decoder: Any, sampler: LocalSampler, prompts: list[str]) -> list[Decoded]:
    contexts = [context_of(Prompt(prompt, ""), sampler.tokenizer, scored=True) for prompt in prompts]
    with Logprob().open(MODEL, sampler) as score:
        groups = lambda responses: [[0] * len(some) for some in responses]  # noqa: E731
        return decode_many(decoder, contexts, Answering(sampler, Sampling(), score_steps=score, group=groups))


def test_one_beam_of_one_step_at_temperature_0_is_greedy(sampler: LocalSampler) -> None:
    greedy = decode(Greedy(**SHORT), sampler, PROMPTS)
    beam = decode(StepBeam(beams=1, expand=1, temperature=0.0, **SHORT), sampler, PROMPTS)
    assert [one.answer for one in beam] == [one.answer for one in greedy]
    assert any("\nStep 2:" in one.answer.text for one in beam)


def test_dvts_of_one_tree_is_step_beam_of_one_beam(sampler: LocalSampler) -> None:
    tree = decode(Dvts(trees=1, expand=3, **SHORT), sampler, PROMPTS)
    assert tree == decode(StepBeam(beams=1, expand=3, **SHORT), sampler, PROMPTS)


def test_the_best_of_one_is_a_sample_of_one(sampler: LocalSampler) -> None:
    assert decode(BestOfN(n=1, **SHORT), sampler, PROMPTS) == decode(Sample(n=1, **SHORT), sampler, PROMPTS)


@pytest.mark.parametrize("decoder", [Sample(n=3, **SHORT), StepBeam(beams=2, expand=2, **SHORT)])
def test_a_problem_is_answered_alike_in_any_company(sampler: LocalSampler, decoder: Any) -> None:
    """Its own random streams: whatever else is in the batch, and in whatever order."""
    together = decode(decoder, sampler, PROMPTS)
    alone = [decode(decoder, sampler, [prompt])[0] for prompt in reversed(PROMPTS)]
    texts = [[response.completion.text for response in one.responses] for one in together]
    assert texts == [[response.completion.text for response in one.responses] for one in reversed(alone)]
