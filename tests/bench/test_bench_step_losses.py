"""The list of leaves and its pairs are one problem: the same loss, in far fewer tokens."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from support import tiny

from benchmarks.step_losses import PROMPT, as_list, as_pairs, known, leaves, on_steps, pairwise
from stepdpo.algo.stepweighted import StepWeighted
from stepdpo.algo.tpo import TPO
from stepdpo.models.attention.registry import register
from stepdpo.models.scorer import Scorer
from stepdpo.tokens.token_tree import TokenSequence


@pytest.fixture
def tree() -> list[TokenSequence]:
    vocabulary = len(tiny.tokenizer())
    small = leaves(3, seed=0)
    return [TokenSequence(one.tokens % vocabulary, one.first_scored, one.owner, one.steps) for one in small]


def test_the_sizes(tree: list[TokenSequence]) -> None:
    """2 + 4 + 8 steps of 3 tokens behind the question; a pair has 6 steps, or 5 or 4 where its leaves share some."""
    assert as_list(tree).input_ids_RL.numel() == PROMPT + 14 * 3
    assert as_pairs(tree, False).input_ids_RL.numel() == 16 * (PROMPT + 6 * 3)


def test_they_are_one_problem(tree: list[TokenSequence]) -> None:
    """DPO at beta .4 is the default of both; the mean over 16 pairs is the list-wise loss."""
    scorer = Scorer(tiny.model(register()), False, lambda _: nullcontext())
    with torch.no_grad():
        one_by_one = pairwise(scorer, known(as_pairs(tree, False)))
        assert float(on_steps(scorer, StepWeighted(), known(as_pairs(tree, True)))) == pytest.approx(float(one_by_one))
        assert float(on_steps(scorer, TPO(), known(as_list(tree)))) == pytest.approx(float(one_by_one), rel=1e-5)
