"""Packed equals padded for losses on steps: pairs, single responses and all responses to a problem.

The twin shares no code with the package but the templates and the loss: it tokenises, pads, runs the stock model, and
tells by the tokenizer's own offsets which step a token ends in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny
from support.twins import Setting, close, gradient_of, moved, ours, padded, row, scoring

from stepdpo.algo.dpo import DPO
from stepdpo.algo.fullstep import Form, FullStep
from stepdpo.algo.outcome import Outcome
from stepdpo.algo.stepkto import StepKTO
from stepdpo.algo.stepweighted import StepWeighted, Weigh
from stepdpo.algo.tpo import TPO, Rank
from stepdpo.core.types import Mark, Pair, Preference
from stepdpo.data.level import Instance, Prefix, Step
from stepdpo.tokens.batch_sampler import Group, micro_batches
from stepdpo.tokens.step_scores import StepScores

NAN = float("nan")


def marked(text: str, *parts: tuple[str, float | None]) -> tuple[Mark, ...]:
    """A mark at the end of each part of a text, which follow one another."""
    marks, at = [], 0
    for part, value in parts:
        at = text.index(part, at) + len(part)
        marks.append(Mark(at, value))
    return tuple(marks)


def whole(preference: Preference, side: str) -> str:
    return preference.prefix + getattr(preference, side) + getattr(preference, f"{side}_rest")


ONE, TWO, THREE, FOUR, FIVE = tiny.PREFERENCES
PAIRS = (
    replace(
        ONE,
        chosen_steps=marked(whole(ONE, "chosen"), ("pens.", 1.0), ("coins.", 0.75)),
        rejected_steps=marked(whole(ONE, "rejected"), ("pens.", 1.0), ("which is", 0.0), ("all.", None)),
        rejected_weights=marked(whole(ONE, "rejected"), ("gets 7", 0.25), (" + 2", 2.0)),
    ),
    replace(TWO, chosen_weights=marked(whole(TWO, "chosen"), ("12", 0.5), ("- 5", None), ("= 7", 0.0))),
    replace(THREE, chosen_value=0.5, rejected_value=-1.0),
    FOUR,
    FIVE,
)


def response(question: str, text: str, label: float | None, *parts: tuple[str, float | None]) -> Preference:
    return Preference(question, "", text, "", whole=True, label=label, chosen_steps=marked(text, *parts))


SOLUTIONS = (
    response(ONE.question, whole(ONE, "chosen"), 1.0, ("pens.\n", 1.0), ("coins.", 1.0)),
    response(ONE.question, whole(ONE, "rejected"), 0.0, ("pens.\n", 1.0), ("all.", 0.0)),
    response(ONE.question, whole(ONE, "chosen").replace("14", "41"), 0.25, ("pens.\n", None)),
    response(TWO.question, whole(TWO, "rejected"), 0.0),
    response(ONE.question, whole(ONE, "rejected").replace("3 + 4", "3 - 4"), 0.0, ("pens.\n", 0.0), ("all.", 0.5)),
    response(TWO.question, whole(TWO, "chosen"), 1.0, ("cookies.\n", 1.0)),
)


@dataclass(frozen=True)
class Alone:
    """One response by itself: its row, and for every token where it ends in the scored text."""

    row: Any
    ends: list[int]
    side: str
    steps: tuple[Mark, ...]
    weights: tuple[Mark, ...]
    label: float


Examples = Sequence[Sequence[tuple[Alone, str]]]
"""(a response, what stands before it) of each example."""


def alone(pair: Pair, side: str, label: float) -> Alone:
    tokenizer = tiny.tokenizer()
    prompt = tiny.CHAT.render(pair.question, pair.history, tokenizer)
    text, ends = getattr(pair, side), getattr(pair, f"{side}_ends")
    read = prompt.text + pair.context
    made = row(read, text, ends, tokenizer)
    offsets = tokenizer(read + text, return_offsets_mapping=True)["offset_mapping"]
    places = [end - len(read) for _, end in offsets] + [len(text)] * ends
    return Alone(made, places, text, getattr(pair, f"{side}_steps"), getattr(pair, f"{side}_weights"), label)


def mark_of(marks: Sequence[Mark], end: int) -> int:
    """The first that a token ending there does not end after."""
    return next((number for number, mark in enumerate(marks) if end <= mark.end), len(marks))


def by_hand(steps: tuple[Mark, ...], context: str, text: str) -> tuple[Mark, ...]:
    """The data's marks, then a step at every label of a line, up to the end."""
    done = steps[-1].end if steps else 0
    if steps and not text[done:].strip():
        return (*steps[:-1], Mark(len(text), steps[-1].value))
    found = list(steps)
    for place in range(max(done, 1), len(text)):
        if text.startswith("Step ", place) and (context + text)[len(context) + place - 1] == "\n" and place > done:
            found.append(Mark(place, None))
    return (*found, Mark(len(text), None))


def scores(setting: Setting, examples: Examples, point: Any = None) -> tuple[Any, StepScores]:
    """The policy, and what the loss is given, by the padded way."""
    pad = tiny.tokenizer().pad_token_id
    reference, policy = (setting.make("sdpa").to(setting.dtype) for _ in range(2))
    moved(policy, setting.move)
    every = [one for example in examples for one in example]
    policy_BLV, ids_BL = padded(policy, [one.row for one, _ in every], pad)
    with torch.no_grad():
        reference_BLV, _ = padded(reference, [one.row for one, _ in every], pad)
    logps, known, step_E, weights, response_S, labels = [], [], [], [], [], []
    for number, (one, context) in enumerate(every):
        steps = by_hand(one.steps, context, one.side)
        used = sorted({mark_of(steps, end) for end in one.ends[one.row.first :]})
        first = len(response_S)
        response_S += [number] * len(used)
        labels += [NAN if steps[s].value is None else steps[s].value for s in used]
        for place in range(one.row.first, len(one.row.ids)):
            target = ids_BL[number, place]
            logps.append(policy_BLV[number, place - 1, target])
            known.append(reference_BLV[number, place - 1, target])
            step_E.append(first + used.index(mark_of(steps, one.ends[place])))
            mark = mark_of(one.weights, one.ends[place])
            weights.append(
                1.0 if mark == len(one.weights) or one.weights[mark].value is None else one.weights[mark].value
            )
    return policy, StepScores(
        logps_E=torch.stack(logps),
        step_E=torch.tensor(step_E),
        weight_E=torch.tensor(weights),
        response_S=torch.tensor(response_S),
        label_S=torch.tensor(labels),
        label_R=torch.tensor([one.label for one, _ in every]),
        example_R=torch.tensor([number for number, example in enumerate(examples) for _ in example]),
        confidence_B=torch.tensor(setting_confidence(setting, len(examples))),
        reference_logps_E=torch.stack(known),
        reference_point=point,
    )


def setting_confidence(setting: Setting, count: int) -> list[float]:
    return [p.confidence for p in setting.preferences] if len(setting.preferences) == count else [1.0] * count


def agrees(setting: Setting, examples: Examples, folder: Path, point: Any = None) -> None:
    metrics, gradient = ours(setting, folder)
    policy, given = scores(setting, examples, point)
    loss = setting.algo(given).losses_B.mean()
    loss.backward()
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-6)
    close(gradient, gradient_of(policy))


@pytest.mark.parametrize("weigh", Weigh)
@pytest.mark.parametrize(
    "level", [Step(), Step(prefix=Prefix.response), Instance()], ids=["step", "response", "instance"]
)
def test_pairs(level: Any, weigh: Weigh, tmp_path: Path) -> None:
    setting = Setting(StepWeighted(weigh=weigh), level, preferences=PAIRS)
    pairs = [level(preference) for preference in PAIRS]
    examples = [
        [(alone(pair, "chosen", 1.0), pair.context), (alone(pair, "rejected", 0.0), pair.context)] for pair in pairs
    ]
    agrees(setting, examples, tmp_path)


@pytest.mark.parametrize("algo", [Outcome(), StepKTO()], ids=["outcome", "stepkto"])
@pytest.mark.parametrize("rows", [SOLUTIONS, PAIRS[:3] + SOLUTIONS[:2]], ids=["solutions", "pairs too"])
def test_single_responses(rows: Any, algo: Any, tmp_path: Path) -> None:
    level = Instance()
    setting = Setting(algo, level, preferences=rows)
    pairs = [level(preference) for preference in rows]
    examples = []
    for pair in pairs:
        label = 1.0 if pair.label is None else pair.label
        examples.append([(alone(pair, "chosen", label), pair.context)])
        if pair.rejected:
            examples.append([(alone(pair, "rejected", 0.0), pair.context)])
    agrees(setting, examples, tmp_path, mismatched_point(setting, pairs) if algo == StepKTO() else None)


def mismatched_point(setting: Setting, pairs: Sequence[Pair]) -> torch.Tensor:
    """Each row's question with the chosen side of the next row about another one."""
    wrong = []
    for number, pair in enumerate(pairs):
        later = pairs[number + 1 :] + pairs[:number]
        other = next(one for one in later if one.question != pair.question)
        mixed = replace(
            pair, context=other.context, chosen=other.chosen, chosen_ends=other.chosen_ends, chosen_steps=()
        )
        wrong.append([(alone(mixed, "chosen", 1.0), mixed.context)])
    with torch.no_grad():
        _, given = scores(setting, wrong)
        return given.by_response(given.logratios_E).mean().clamp(min=0)


GROUPED = [TPO(), TPO(rank=Rank.lambda_rank), FullStep(), FullStep(form=Form.surrogate)]


@pytest.mark.parametrize("algo", GROUPED, ids=["tpo", "lambda", "exact", "surrogate"])
def test_all_responses_to_a_problem(algo: Any, tmp_path: Path) -> None:
    """Those of one problem lie apart in the data; a third problem, whose only response is right, is left out."""
    rows = (*SOLUTIONS, response("What is 1 + 1?", "The answer is: 2", 1.0), response(TWO.question, "Nothing.", None))
    level = Instance()
    pairs = [level(preference) for preference in SOLUTIONS]
    examples = [
        [(alone(pair, "chosen", pair.label or 0.0), "") for pair in pairs if pair.question == one.question]
        for one in (ONE, TWO)
    ]
    agrees(Setting(algo, level, preferences=rows), examples, tmp_path)


def test_a_step_by_step_loss_is_dpo_where_nothing_is_weighed(tmp_path: Path) -> None:
    plain, gradient = ours(Setting(DPO(), Step()), tmp_path / "dpo")
    stepped, same = ours(Setting(StepWeighted(), Step()), tmp_path / "stepped")
    assert stepped["loss"] == pytest.approx(plain["loss"], rel=1e-12)
    assert stepped["rewards/margins"] == pytest.approx(plain["rewards/margins"], rel=1e-9)
    close(same, gradient, rtol=1e-9)


@pytest.mark.parametrize("group", Group)
@pytest.mark.parametrize("tokens", [60, 250, 100_000])
@pytest.mark.parametrize(
    "algo", [StepWeighted(weigh=Weigh.labels), TPO(), StepKTO()], ids=["pairs", "groups", "single"]
)
def test_micro_batches_change_nothing(algo: Any, tokens: int, group: Group, tmp_path: Path) -> None:
    """However few tokens a pass has, and however many processes share an update."""
    singles = () if "rejected" in algo.needs else SOLUTIONS
    setting = Setting(algo, Instance(), preferences=PAIRS[:3] + singles)
    metrics, gradient = ours(setting, tmp_path / "whole")
    with scoring(setting, tmp_path / "parts", tokens, group) as (done, material):
        ids = sorted(material.train)
        found = done.compute(done.inputs(material.train, ids, "train"), learn=True)
        close(gradient_of(done.engine.model), gradient)
        assert found["loss"] == pytest.approx(metrics["loss"], rel=1e-9)
        shares = [list(micro_batches(material.train, ids, tokens, rank, 2, group)) for rank in range(2)]
        assert sorted(i for share in shares for p in share if p.weight for i in p.batch.pair_ids) == ids
