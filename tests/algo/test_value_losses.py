"""Losses that train a value head: their formulas written out step by step, and their limit cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from stepdpo.algo import prm, svpo
from stepdpo.algo.dpo import DPO
from stepdpo.algo.prm import PRM
from stepdpo.algo.svpo import SVPO
from stepdpo.algo.value import Value
from stepdpo.tokens.step_scores import Squash, Trunk
from tests.algo.test_step_losses import as_pairs, losses, sigmoid
from tests.support.step_scores import Example, Response, Step, drawn, pair_of

NAN = float("nan")
SEEDS = range(6)


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def steps(values: Sequence[float], labels: Sequence[float], label: float = NAN) -> Example:
    return [Response([Step([(-1.0, -1.0, 1.0)], y, v) for v, y in zip(values, labels, strict=True)], label)]


def nll(response: Response) -> float:
    logps = [p for step in response.steps for p, _, _ in step.tokens]
    return -sum(logps) / len(logps)


@pytest.mark.parametrize("seed", SEEDS)
def test_value_is_its_formula(seed: int) -> None:
    examples = drawn(seed, [1] * 6, labels=(0.0, 1.0, 0.25, NAN))
    expected = []
    for (response,) in examples:
        labels = [step.label for step in response.steps]
        labels[-1] = response.label if math.isnan(labels[-1]) else labels[-1]
        errors = [
            (math.tanh(step.value) - (2 * label - 1)) ** 2
            for step, label in zip(response.steps, labels, strict=True)
            if not math.isnan(label)
        ]
        imitation = 0.7 * nll(response) if response.label >= 0.5 else 0.0
        expected.append(imitation + 0.3 * (sum(errors) / len(errors) if errors else 0.0))
    assert losses(Value(weight=0.3, sft=0.7), examples) == pytest.approx(expected, abs=1e-10)


def test_a_wrong_solution_has_no_imitation() -> None:
    """Only its value term, which is 0 where the head says just that."""
    example = steps([0.0, math.atanh(-0.5)], [0.5, 0.25], label=0.0)
    assert losses(Value(weight=1.0), [example]) == pytest.approx([0.0])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("average", prm.Average)
def test_cross_entropy_is_its_formula(average: prm.Average, seed: int) -> None:
    examples = drawn(seed, [1] * 6)
    expected = []
    for (response,) in examples:
        terms = [
            -s.label * log_sigmoid(s.value) - (1 - s.label) * log_sigmoid(-s.value)
            for s in response.steps
            if not math.isnan(s.label)
        ]
        expected.append(sum(terms) / (max(1, len(terms)) if average is prm.Average.solution else 1))
    assert losses(PRM(average=average), examples) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_ranking_is_its_formula(seed: int) -> None:
    zeta, examples = 1.5, drawn(seed, [1] * 8)
    expected = []
    for (response,) in examples:
        right = [s.value for s in response.steps if s.label >= 0.5]
        wrong = [s.value for s in response.steps if s.label < 0.5]
        below = sum(math.exp(v + zeta) for v in wrong)
        terms = [
            -math.log(math.exp(v) / (1 + sum(map(math.exp, right[: place + 1])) + below))
            for place, v in enumerate(right)
        ]
        terms += [math.log(1 + below)] if wrong else []
        expected.append(sum(terms) / max(1, len(terms)))
    assert losses(PRM(form=prm.Form.pqm, zeta=zeta), examples) == pytest.approx(expected, abs=1e-10)


def test_the_ranking_of_two_steps() -> None:
    """One right, one wrong, no margin: half of log(1 + e^w) + log((e^c + 1 + e^w) / e^c)."""
    right, wrong = 0.7, -0.4
    expected = math.log(1 + math.exp(wrong)) + math.log((math.exp(right) + 1 + math.exp(wrong)) / math.exp(right))
    example = steps([right, wrong], [1.0, 0.0])
    assert losses(PRM(form=prm.Form.pqm, zeta=0.0), [example]) == pytest.approx([expected / 2])


def test_the_ranking_of_wrong_steps_alone_is_one_term() -> None:
    example = steps([0.3, -0.2], [0.0, 0.0])
    expected = math.log(1 + math.exp(0.3 + 4) + math.exp(-0.2 + 4))
    assert losses(PRM(form=prm.Form.pqm), [example]) == pytest.approx([expected])


@pytest.mark.parametrize("form", prm.Form)
def test_unlabelled_steps_do_not_count(form: prm.Form) -> None:
    short, long = steps([0.3, -0.2], [1.0, 0.0]), steps([0.3, 5.0, -0.2, 7.0], [1.0, NAN, 0.0, NAN])
    nothing = steps([3.0], [NAN])
    found = losses(PRM(form=form), [short, long, nothing])
    assert found[0] == pytest.approx(found[1])
    assert found[2] == 0


@pytest.mark.parametrize("margin", svpo.Margin)
@pytest.mark.parametrize("seed", SEEDS)
def test_svpo_is_its_formula(seed: int, margin: svpo.Margin) -> None:
    examples = [pair_of(example) for example in drawn(seed, [2] * 4)]
    algo = SVPO(0.3, preference=0.9, value=0.7, rank=1.3, sft=0.2, m=0.4, margin=margin)
    expected = []
    for chosen, rejected in examples:
        v = [math.tanh(side.steps[-1].value) for side in (chosen, rejected)]
        q = [2 * side.steps[-1].label - 1 for side in (chosen, rejected)]
        error = sum((a - b) ** 2 for a, b in zip(v, q, strict=True) if not math.isnan(b)) / 2
        gap = q[0] - q[1]
        m = 0.4 if margin is svpo.Margin.fixed or math.isnan(gap) else min(0.4, gap)
        hinge = max(0.0, m - (v[0] - v[1]))
        preference = -log_sigmoid(0.3 * (chosen.delta() - rejected.delta()))
        expected.append(0.9 * preference + 0.7 * error + 1.3 * hinge + 0.2 * nll(chosen))
    assert losses(algo, examples) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("alone", ["preference", "value", "rank", "sft"])
def test_each_term_can_be_had_alone(alone: str) -> None:
    """Together they are the sum of the four."""
    examples = [pair_of(example) for example in drawn(7, [2] * 3)]
    weights = dict.fromkeys(["preference", "value", "rank", "sft"], 0.0)
    parts = {name: losses(SVPO(**{**weights, name: 1.0}), examples) for name in weights}
    whole = losses(SVPO(preference=1, value=1, rank=1, sft=1), examples)
    assert whole == pytest.approx([sum(column) for column in zip(*parts.values(), strict=True)])
    if alone == "preference":
        assert parts[alone] == pytest.approx(DPO(0.1)(as_pairs(examples)).losses_B.tolist())


def test_margin_and_error_agree_under_gap() -> None:
    """Where the head says just what the data say, neither value term is left, however near the values lie."""
    near = pair_of([*steps([math.atanh(0.2)], [0.6]), *steps([math.atanh(0.1)], [0.55])])
    assert losses(SVPO(preference=0, sft=0), [near]) == pytest.approx([0.0], abs=1e-12)
    assert losses(SVPO(preference=0, sft=0, margin=svpo.Margin.fixed), [near])[0] == pytest.approx(0.5 - 0.1)


@pytest.mark.parametrize(
    ("algo", "wrong"),
    [
        (Value, dict(trunk=Trunk.frozen)),
        (SVPO, dict(trunk=Trunk.frozen, sft=0.0)),
        (PRM, dict(form=prm.Form.pqm, average=prm.Average.step)),
        (PRM, dict(dropout=1.0)),
    ],
)
def test_settings_that_cannot_be_meant(algo: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"trunk=frozen|average=step|dropout"):
        algo(**wrong)


def test_what_squashes_the_head() -> None:
    raw = torch.tensor([-1.0, 0.0, 2.0])
    assert Value().value_head.squash(raw).tolist() == pytest.approx([math.tanh(x) for x in raw.tolist()])
    assert PRM().value_head.squash(raw).tolist() == pytest.approx([sigmoid(x) for x in raw.tolist()])
    assert SVPO().value_head.squash is Squash.tanh
