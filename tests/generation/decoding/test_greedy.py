"""Greedy decoding asks for one response at temperature 0."""

from collections.abc import Sequence

import pytest
from support.decoding import decode

from stepdpo.core.types import Completion, Sampling
from stepdpo.generation.decode_many import answers
from stepdpo.generation.decoded import Cost
from stepdpo.generation.decoding.greedy import Greedy


class Scripted:
    def sample(
        self, prompts: Sequence[str], params: Sampling, streams: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        assert params == Sampling(n=1, temperature=0.0, max_tokens=7)
        return [[Completion(prompt.upper(), 1, "eos")] for prompt in prompts]


def test_one_completion_a_prompt() -> None:
    found = answers(Greedy(max_tokens=7), ["a", "b"], Scripted())
    assert [completion.text for completion in found] == ["A", "B"]


def test_it_costs_itself() -> None:
    (found,) = decode(Greedy(max_tokens=7), Scripted())
    assert (len(found.responses), found.responses[0].share, found.cost) == (1, 1.0, Cost(1, 0, 1))


def test_a_response_needs_room() -> None:
    with pytest.raises(ValueError, match="max_tokens"):
        Greedy(max_tokens=0)
