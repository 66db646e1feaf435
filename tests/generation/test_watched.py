"""What is told of a decoder at work: every token when it is written, the text so far, what a scorer says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from support.constructions import composed

from stepdpo.core.types import Sampling
from stepdpo.generation.requests import Beginning, Scored
from stepdpo.generation.transformers import LocalSampler, TransformersSampler
from stepdpo.generation.watched import Looked, WatchedSampler, Wrote, watched
from stepdpo.tinymath.problems import problems

PROMPTS = [f"<|im_start|>user\n{p.question}<|im_end|>\n<|im_start|>assistant\n" for p in problems("test", 3)]


@pytest.fixture(scope="module")
def sampler() -> Iterator[LocalSampler]:
    with TransformersSampler(device="cpu", progress=False).open(composed().model) as local:
        yield local


def test_the_text_grows_to_the_answer(sampler: LocalSampler) -> None:
    heard: list[Wrote | Looked] = []
    greedy = Sampling(max_tokens=160)
    ((watched_one,),) = WatchedSampler(sampler, PROMPTS[0], heard.append).sample(PROMPTS[:1], greedy)
    ((alone,),) = sampler.sample(PROMPTS[:1], greedy)
    assert watched_one == alone
    texts = [event.text for event in heard if isinstance(event, Wrote)]
    assert len(texts) == alone.tokens > 10
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert texts[-1] == alone.text
    assert texts[0] != texts[-1]


def test_tokens_of_many_are_counted_and_none_is_shown(sampler: LocalSampler) -> None:
    """Rows that have ended, and stay in the batch for a while, are not counted."""
    heard: list[Wrote | Looked] = []
    drawn = Sampling(n=5, temperature=1.0, max_tokens=120, seed=3)
    done = WatchedSampler(sampler, PROMPTS[0], heard.append).sample(PROMPTS, drawn)
    counts = [event.tokens for event in heard if isinstance(event, Wrote)]
    assert counts[-1] == sum(one.tokens for some in done for one in some)
    assert counts == sorted(counts)
    assert all(event.text is None for event in heard if isinstance(event, Wrote))


def test_what_a_watcher_raises_ends_the_writing(sampler: LocalSampler) -> None:
    heard = []

    def tell(event: Wrote | Looked) -> None:
        heard.append(event)
        if len(heard) == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        WatchedSampler(sampler, PROMPTS[0], tell).sample(PROMPTS[:1], Sampling(max_tokens=160))
    assert len(heard) == 4


def test_a_scorer_is_overheard() -> None:
    heard: list[Wrote | Looked] = []
    given = [("Q", Beginning(("a", "b"), False)), ("Q", Beginning(("c",), True))]

    def score(items: Sequence[tuple[str, Beginning]]) -> list[Scored]:
        return [Scored(float(len(one.steps)), (1.0,) * len(one.steps), False) for _, one in items]

    assert watched(score, heard.append)(given) == score(given)
    assert heard == [Looked((given[0][1], given[1][1]), tuple(score(given)))]
