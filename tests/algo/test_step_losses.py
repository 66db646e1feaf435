"""Losses on steps against their formulas written out term by term in double precision, and in their limit cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from stepdpo.algo import fullstep, tpo
from stepdpo.algo.dpo import DPO
from stepdpo.algo.fullstep import FullStep
from stepdpo.algo.kto import KTO
from stepdpo.algo.outcome import Outcome
from stepdpo.algo.stepkto import StepKTO
from stepdpo.algo.stepweighted import StepWeighted, Weigh
from stepdpo.algo.tpo import TPO
from stepdpo.tokens.pair_scores import PairScores
from stepdpo.tokens.step_scores import StepScores
from tests.support.step_scores import Example, Response, Step, drawn, pair_of, step_scores

NAN = float("nan")
SEEDS = range(6)
EXACT = dict(rtol=0, atol=1e-10)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def losses(algo: Any, examples: Sequence[Example], **more: Any) -> list[float]:
    found: list[float] = algo(step_scores(examples, **more)).losses_B.tolist()
    return found


def gradient(algo: Any, scores: StepScores) -> torch.Tensor:
    (found,) = torch.autograd.grad(algo(scores).losses_B.sum(), scores.logps_E)
    return found


def as_pairs(examples: Sequence[Example]) -> PairScores:
    """The sums that a pairwise loss would be given."""

    def column(side: int, value: Callable[[tuple[float, float, float]], float]) -> torch.Tensor:
        return torch.tensor(
            [sum(value(token) for step in example[side].steps for token in step.tokens) for example in examples],
            dtype=torch.float64,
        )

    return PairScores(
        chosen_logps_B=column(0, lambda t: t[0]),
        rejected_logps_B=column(1, lambda t: t[0]),
        chosen_tokens_B=column(0, lambda t: 1),
        rejected_tokens_B=column(1, lambda t: 1),
        confidence_B=torch.ones(len(examples), dtype=torch.float64),
        reference_chosen_logps_B=column(0, lambda t: t[1]),
        reference_rejected_logps_B=column(1, lambda t: t[1]),
    )


def unweighted(examples: Sequence[Example]) -> list[Example]:
    return [
        [replace(r, steps=[Step([(p, q, 1.0) for p, q, _ in s.tokens], s.label) for s in r.steps]) for r in example]
        for example in examples
    ]


def pairs(seed: int) -> list[Example]:
    return [pair_of(example) for example in drawn(seed, [2, 2, 2])]


def groups(seed: int) -> list[Example]:
    return drawn(seed, [4, 2, 5, 3])


# Weighted sums


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weigh", Weigh)
def test_stepweighted_is_its_formula(weigh: Weigh, seed: int) -> None:
    examples, beta, confidence = pairs(seed), 0.7, [1.0, 0.8, 0.6]

    def weight(response: Response, rejected: bool, number: int) -> float:
        label = response.steps[number].label
        if weigh is Weigh.labels and not math.isnan(label):
            return 1 - label if rejected else label
        if weigh is Weigh.first_error and rejected:
            wrong = [place for place, step in enumerate(response.steps) if step.label < 0.5]
            return 1.0 if not wrong or number == wrong[0] else 0.0
        return 1.0

    expected = []
    for example, sure in zip(examples, confidence, strict=True):
        sums = [
            sum(
                w * weight(response, side == 1, number) * (p - r)
                for number, step in enumerate(response.steps)
                for p, r, w in step.tokens
            )
            for side, response in enumerate(example)
        ]
        z = beta * (sums[0] - sums[1])
        expected.append(-sure * math.log(sigmoid(z)) - (1 - sure) * math.log(sigmoid(-z)))
    assert losses(StepWeighted(beta, weigh), examples, confidence=confidence) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_weights_of_one_are_dpo(seed: int) -> None:
    examples = unweighted(pairs(seed))
    torch.testing.assert_close(
        StepWeighted(0.3)(step_scores(examples)).losses_B, DPO(0.3)(as_pairs(examples)).losses_B, **EXACT
    )


def test_no_weight_on_the_rejected_side_leaves_the_chosen_term() -> None:
    """cDPO with a score of 1 everywhere: nothing of the rejected side is critical."""
    chosen = Response([Step([(-1.0, -2.0, 1.0), (-0.5, -0.25, 1.0)])], 1.0)
    rejected = Response([Step([(-3.0, -1.0, 0.0)])], 0.0)
    assert losses(StepWeighted(2.0), [[chosen, rejected]]) == pytest.approx([-math.log(sigmoid(2 * 0.75))])


# Full-Step-DPO


def softmax(values: Sequence[float]) -> list[float]:
    total = sum(map(math.exp, values))
    return [math.exp(value) / total for value in values]


def ranked(example: Example) -> list[tuple[Response, Response]]:
    return [(one, other) for one in example for other in example if one.label > other.label]


def rewards(response: Response) -> list[float]:
    return [0.5 if math.isnan(step.label) else step.label for step in response.steps]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("over", fullstep.Over)
@pytest.mark.parametrize("form", fullstep.Form)
def test_fullstep_is_its_formula(form: fullstep.Form, over: fullstep.Over, seed: int) -> None:
    if form is fullstep.Form.exact and over is fullstep.Over.tokens:
        with pytest.raises(ValueError, match="over=tokens"):
            FullStep(form=form, over=over)
        return
    beta, kappa, tau, examples = 0.3, 1.7, 0.6, groups(seed)

    def shares(response: Response, sign: int) -> list[float]:
        """Of every token, in order."""
        if over is fullstep.Over.tokens:
            each = [r for r, step in zip(rewards(response), response.steps, strict=True) for _ in step.tokens]
            return softmax([sign * kappa * r for r in each])
        by_step = softmax([sign * kappa * r for r in rewards(response)])
        if form is fullstep.Form.exact:
            return [len(by_step) * w for w, step in zip(by_step, response.steps, strict=True) for _ in step.tokens]
        return [w / len(step.tokens) for w, step in zip(by_step, response.steps, strict=True) for _ in step.tokens]

    def side(response: Response, sign: int) -> float:
        logps = [p for step in response.steps for p, _, _ in step.tokens]
        terms = zip(shares(response, sign), response.logratios(), logps, strict=True)
        if form is fullstep.Form.exact:
            return sum(w * d for w, d, _ in terms)
        return sum(w * sigmoid(-sign * tau * d) * p for w, d, p in terms)

    expected = []
    for example in examples:
        found = []
        for one, other in ranked(example):
            gap = side(one, 1) - side(other, -1)
            gate = sigmoid(-beta * (one.delta() - other.delta()))
            found.append(-math.log(sigmoid(beta * gap)) if form is fullstep.Form.exact else -gate * gap)
        expected.append(sum(found) / len(found))
    assert losses(FullStep(beta, kappa, tau, form, over), examples) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_fullstep_without_rewards_is_dpo(seed: int) -> None:
    examples = pairs(seed)
    torch.testing.assert_close(
        FullStep(0.2, kappa=0)(step_scores(examples)).losses_B, DPO(0.2)(as_pairs(examples)).losses_B, **EXACT
    )


def test_the_surrogate_has_dpos_gradient_over_the_length() -> None:
    """kappa = tau = 0: every u is 1/2 and every share 1/n; DPO's gradient is -beta G a token, so it is 1/(2 beta n)."""
    beta, tokens = 0.7, [(-1.0, -1.5, 1.0), (-0.3, -0.1, 1.0), (-2.0, -1.0, 1.0)]
    example = [Response([Step(tokens)], 1.0), Response([Step(tokens[::-1][:2] + tokens[:1])], 0.0)]
    plain = step_scores([example])
    torch.testing.assert_close(
        gradient(FullStep(beta, 0, 0, fullstep.Form.surrogate), step_scores([example])),
        gradient(StepWeighted(beta), plain) / (2 * beta * len(tokens)),
        **EXACT,
    )


def test_the_surrogate_weighs_sides_by_their_lengths() -> None:
    """Token gradients of chosen and rejected stand in the ratio of the other's length to its own."""
    example = [Response([Step([(-1.0, -1.0, 1.0)] * 2)], 1.0), Response([Step([(-1.0, -1.0, 1.0)] * 5)], 0.0)]
    found = gradient(FullStep(0.1, 0, 0, fullstep.Form.surrogate), step_scores([example]))
    assert -found[0] / found[2] == pytest.approx(5 / 2)


def test_a_softmax_over_tokens_favours_long_steps() -> None:
    """Rewards .9 and .1 with 2 and 5 tokens, kappa = .5: shares 2 e^.45 : 5 e^.05, so the worse step has the larger."""
    shares = {
        over: FullStep(0.1, 0.5, 0, fullstep.Form.surrogate, over)._weights(
            step_scores([[Response([Step([(-1, -1, 1)] * 2, 0.9), Step([(-1, -1, 1)] * 5, 0.1)], 1.0)]]), 1.0
        )
        for over in fullstep.Over
    }
    by_tokens = float(shares[fullstep.Over.tokens][:2].sum())
    assert by_tokens == pytest.approx(2 * math.exp(0.45) / (2 * math.exp(0.45) + 5 * math.exp(0.05)))
    assert by_tokens < 0.38
    assert float(shares[fullstep.Over.steps][:2].sum()) == pytest.approx(sigmoid(0.4))


# Step-KTO


@pytest.mark.parametrize("seed", SEEDS)
def test_stepkto_is_its_formula(seed: int) -> None:
    examples = drawn(seed, [1] * 6)
    algo, z0 = StepKTO(beta=0.4, steps=0.8, desirable=1.3, undesirable=0.7), 0.35

    def value(delta: float, label: float, z: float) -> float:
        if label >= 0.5:
            return 1.3 * (1 - sigmoid(0.4 * (delta - z)))
        return 0.7 * (1 - sigmoid(0.4 * (z - delta)))

    expected = []
    for (response,) in examples:
        judged = []
        for step in response.steps:
            if not math.isnan(step.label):
                delta = sum(p - r for p, r, _ in step.tokens)
                judged.append(value(delta, step.label, z0 / len(response.steps)))
            if step.label < 0.5:
                break
        steps = sum(judged) / len(judged) if judged else 0.0
        expected.append(value(response.delta(), response.label, z0) + 0.8 * steps)
    assert losses(algo, examples, point=z0) == pytest.approx(expected, abs=1e-10)


def test_stepkto_at_the_reference_is_half_of_every_term() -> None:
    examples = [
        [Response([Step([(-1.0, -1.0, 1.0)], 1.0), Step([(-2.0, -2.0, 1.0)], 0.0)], label)] for label in (0.0, 1.0)
    ]
    assert losses(StepKTO(0.1, steps=1.0), examples, point=0.0) == pytest.approx([1.0, 1.0])
    assert losses(StepKTO(0.1, steps=0.0), examples, point=0.0) == pytest.approx([0.5, 0.5])


def test_stepkto_without_steps_is_kto_side_by_side() -> None:
    """A pair's KTO is the sum over its two sides, which are unpaired responses here."""
    (pair,) = [example for example in unweighted(pairs(3))[:1]]
    single = losses(StepKTO(0.4, steps=0.0), [[response] for response in pair], point=0.2)
    both = KTO(0.4)(replace(as_pairs([pair]), reference_point=torch.tensor(0.2, dtype=torch.float64))).losses_B
    assert sum(single) == pytest.approx(float(both))


def test_one_step_doubles_kto() -> None:
    example = [Response([Step([(-1.0, -1.4, 1.0), (-2.0, -1.1, 1.0)], 1.0)], 1.0)]
    once, twice = (losses(StepKTO(0.5, steps=steps), [example], point=0.3) for steps in (0.0, 1.0))
    assert twice == pytest.approx([2 * once[0]])


# Lists


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rank", tpo.Rank)
def test_tpo_is_its_formula(rank: tpo.Rank, seed: int) -> None:
    beta, examples = 0.6, groups(seed)
    expected = []
    for example in examples:
        value = {id(r): beta * r.delta() for r in example}
        place = {id(r): 1 + sum(value[id(o)] > value[id(r)] for o in example) for r in example}
        total = weighed = 0.0
        for one, other in ranked(example):
            weight = 1.0
            if rank is tpo.Rank.lambda_rank:
                discounts = [1 / math.log2(1 + place[id(r)]) for r in (one, other)]
                weight = abs(2**one.label - 2**other.label) * abs(discounts[0] - discounts[1])
            total += weight
            weighed -= weight * math.log(sigmoid(value[id(one)] - value[id(other)]))
        expected.append(weighed / total)
    assert losses(TPO(beta, rank), examples) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("rank", tpo.Rank)
def test_two_leaves_are_dpo(rank: tpo.Rank) -> None:
    examples = pairs(1)
    torch.testing.assert_close(
        TPO(0.2, rank)(step_scores(examples)).losses_B, DPO(0.2)(as_pairs(examples)).losses_B, **EXACT
    )


@pytest.mark.parametrize("rank", tpo.Rank)
def test_the_order_of_the_leaves_changes_nothing(rank: tpo.Rank) -> None:
    examples = groups(2)
    turned = [example[::-1] for example in examples]
    assert losses(TPO(0.2, rank), examples) == pytest.approx(losses(TPO(0.2, rank), turned))


def test_equally_right_leaves_add_nothing() -> None:
    """Of three leaves two are as right as each other: two pairs are left."""
    good, better = (Response([Step([(-1.0, ref, 1.0)])], 1.0) for ref in (-2.0, -3.0))
    bad = Response([Step([(-1.0, -0.5, 1.0)])], 0.0)
    expected = -(math.log(sigmoid(1 + 0.5)) + math.log(sigmoid(2 + 0.5))) / 2
    assert losses(TPO(1.0), [[good, bad, better]]) == pytest.approx([expected])


def test_lambda_rank_moves_from_the_very_start() -> None:
    """At the reference all values are equal, and so are all ranks: every pair counts, as the loss says log 2."""
    example = [Response([Step([(-1.0, -1.0, 1.0)])], label) for label in (1.0, 0.0, 0.5)]
    scores = step_scores([example])
    assert TPO(1.0, tpo.Rank.lambda_rank)(scores).losses_B.tolist() == pytest.approx([math.log(2)])
    assert gradient(TPO(1.0, tpo.Rank.lambda_rank), scores).abs().max() > 0


# Outcomes


@pytest.mark.parametrize("seed", SEEDS)
def test_outcome_is_its_formula(seed: int) -> None:
    examples = drawn(seed, [1] * 5, labels=(0.0, 1.0, 0.3))
    for (response,), found in zip(examples, losses(Outcome(0.3), examples), strict=True):
        r, y = 0.3 * response.delta(), response.label
        assert found == pytest.approx(-y * math.log(sigmoid(r)) - (1 - y) * math.log(1 - sigmoid(r)), abs=1e-10)


def test_outcome_at_the_reference_is_log_2() -> None:
    examples = [[Response([Step([(-1.0, -1.0, 1.0)])], label)] for label in (0.0, 0.25, 1.0)]
    assert losses(Outcome(), examples) == pytest.approx([math.log(2)] * 3)


# What the record says


@pytest.mark.parametrize("seed", SEEDS)
def test_terms_steps_and_responses_add_up(seed: int) -> None:
    examples = groups(seed)
    scores = step_scores(examples)
    responses = [response for example in examples for response in example]
    assert scores.by_response(scores.logratios_E).tolist() == pytest.approx([r.delta() for r in responses])
    torch.testing.assert_close(
        scores.by_response_of_steps(scores.by_step(scores.logps_E)), scores.by_response(scores.logps_E), **EXACT
    )
    assert scores.tokens_R.tolist() == [len(r.logratios()) for r in responses]
    best, worst = scores.best_B.tolist(), scores.worst_B.tolist()
    first = 0
    for number, example in enumerate(examples):
        labels = [r.label for r in example]
        assert best[number] == first + labels.index(max(labels))
        assert worst[number] == first + labels.index(min(labels))
        first += len(example)


def test_the_first_error_and_what_may_be_judged() -> None:
    steps = [[1.0, NAN, 0.2, 0.0, 1.0], [0.5, NAN], [0.0, 0.0]]
    examples = [[Response([Step([(-1.0, -1.0, 1.0)], label) for label in labels], 1.0)] for labels in steps]
    scores = step_scores(examples)
    assert scores.first_error_S.tolist() == [False, False, True, False, False, False, False, True, False]
    assert scores.judged_S.tolist() == [True, False, True, False, False, True, False, True, False]
