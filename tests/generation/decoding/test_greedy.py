"""Greedy decoding asks for one response at temperature 0."""

from collections.abc import Sequence

import pytest

from stepdpo.core.types import Completion, Sampling
from stepdpo.generation.decoding.greedy import Greedy


class Scripted:
    def sample(self, prompts: Sequence[str], params: Sampling) -> list[list[Completion]]:
        assert params == Sampling(n=1, temperature=0.0, max_tokens=7)
        return [[Completion(prompt.upper(), 1, "eos")] for prompt in prompts]


def test_one_completion_a_prompt() -> None:
    found = Greedy(max_tokens=7)(["a", "b"], Scripted())
    assert [completion.text for completion in found] == ["A", "B"]


def test_a_response_needs_room() -> None:
    with pytest.raises(ValueError, match="max_tokens"):
        Greedy(max_tokens=0)
