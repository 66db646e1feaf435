"""Preference -> Pair: what is scored, what is only read, and where a response ends.

Step-DPO (Lai et al. 2024, arXiv 2406.18629) scores one step; ordinary DPO scores the rest of the solution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from stepdpo.core.errors import UserError
from stepdpo.core.steps import final_answer_stated
from stepdpo.core.types import Mark, Pair, Preference
from stepdpo.data.step_marks import right_rest, within


class Prefix(Enum):
    """Where the reasoning that both sides share goes."""

    prompt = "prompt"
    """Read, not scored."""
    response = "response"
    """Scored, as a part of both responses."""


class AppendEos(Enum):
    auto = "auto"
    """On for whole responses (`Preference.whole`: the formats trl, ultrainteract, solutions and conversations) at
    either level, and at level=instance for solutions that reached a final answer; off for steps."""
    on = "on"
    off = "off"


def _pair(preference: Preference, chosen: str, rejected: str, prefix: Prefix, ends: tuple[bool, bool]) -> Pair:
    scored = preference.prefix if prefix is Prefix.response else ""
    context = preference.prefix if prefix is Prefix.prompt else ""
    p, read = preference, len(context)
    ours, theirs = len(scored + chosen), len(scored + rejected)
    return Pair(
        question=preference.question,
        context=context,
        chosen=scored + chosen,
        rejected=scored + rejected if rejected else "",
        chosen_ends=ends[0],
        rejected_ends=ends[1],
        confidence=preference.confidence,
        history=preference.history,
        rest_ends=ends[0],
        label=preference.label,
        chosen_steps=within(p.chosen_steps or _valued(p.prefix + p.chosen, p.chosen_value), read, ours),
        rejected_steps=within(p.rejected_steps or _valued(p.prefix + p.rejected, p.rejected_value), read, theirs),
        chosen_weights=within(p.chosen_weights, read, ours),
        rejected_weights=within(p.rejected_weights, read, theirs),
    )


def _valued(text: str, value: float | None) -> tuple[Mark, ...]:
    """A step whose value in [-1, 1] is known, as a mark."""
    return () if value is None else (Mark(len(text), (value + 1) / 2),)


def swapped(preference: Preference) -> Preference:
    """The rejected side in place of the chosen one, and the other way round. UserError without a rejected side."""
    if not preference.rejected:
        raise UserError(f"level.swap: there is no rejected side to put first (question: {preference.question[:60]!r})")
    p = preference
    return replace(
        p, chosen=p.rejected, rejected=p.chosen, chosen_rest=p.rejected_rest, rejected_rest=p.chosen_rest,
        chosen_value=p.rejected_value, rejected_value=p.chosen_value, chosen_steps=p.rejected_steps,
        rejected_steps=p.chosen_steps, chosen_weights=p.rejected_weights, rejected_weights=p.chosen_weights,
    )  # fmt: skip


@dataclass(frozen=True)
class Step:
    """Score one step on each side.

    With `prefix: prompt` this is Step-DPO. With `prefix: response` the shared steps are scored on both sides:
    DPO and TDPO1 are unchanged by that, TDPO2 gains a pull towards the reference on the shared tokens.
    """

    prefix: Prefix = Prefix.prompt
    append_eos: AppendEos = AppendEos.auto

    def __call__(self, preference: Preference) -> Pair:
        end = self.append_eos is AppendEos.on or (self.append_eos is AppendEos.auto and preference.whole)
        pair = _pair(preference, preference.chosen, preference.rejected, self.prefix, (end, end))
        rest = right_rest(preference)
        if not rest:
            return pair
        complete = rest == preference.chosen_rest and final_answer_stated(preference.chosen + rest)
        return replace(pair, rest=rest, rest_ends=complete and self.append_eos is not AppendEos.off)


@dataclass(frozen=True)
class Instance:
    """Score each side to the end of its solution: ordinary DPO on complete responses."""

    prefix: Prefix = Prefix.response
    append_eos: AppendEos = AppendEos.auto
    swap: bool = False
    """The sides change places: what a model of mistakes is trained on."""

    def __call__(self, preference: Preference) -> Pair:
        preference = swapped(preference) if self.swap else preference
        chosen = preference.chosen + preference.chosen_rest
        rejected = preference.rejected + preference.rejected_rest
        if self.append_eos is AppendEos.auto:
            # A solution without a final answer was cut short where it was sampled: an end scored there would teach the
            # model to stop in the midst of its work.
            ends = (preference.whole or final_answer_stated(chosen), preference.whole or final_answer_stated(rejected))
        else:
            ends = (self.append_eos is AppendEos.on,) * 2
        return _pair(preference, chosen, rejected, self.prefix, ends)
