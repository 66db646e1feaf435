"""A guard against drift: from the numbers of an update, what says that the model is about to break."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Protocol

from stepdpo.core.ranges import at_least, positive, within

UNPARSED, RUN_ON = "sample/unparsed", "sample/run_on"
"""Shares of a sample of answers: without a final answer, and cut at the limit."""


class Action(Enum):
    """What a finding leads to."""

    warn = "warn"
    """It is said, once a kind."""
    stop = "stop"
    """A checkpoint is saved, and the training ends with exit code 1."""


@dataclass(frozen=True)
class Finding:
    """A number that has passed its bound."""

    kind: str
    """The setting that holds the bound."""
    value: float
    text: str
    """What happened and why it matters, without an end."""


class Guard(Protocol):
    """A part of the group `guard`."""

    @property
    def action(self) -> Action: ...
    @property
    def sample(self) -> int:
        """How many questions are answered now and then; 0 for none."""
        ...

    @property
    def every(self) -> int:
        """Updates between two samples."""
        ...

    @property
    def max_tokens(self) -> int:
        """Longest answer."""
        ...

    def findings(self, record: Mapping[str, float], start: Mapping[str, float]) -> list[Finding]:
        """What is wrong with an update, by its metrics, and what a sample gave, if one was taken then and at the start.

        A function of its arguments alone, so that every process, and a resumed run, comes to the same.
        """
        ...


@dataclass(frozen=True)
class NoGuard:
    """Nothing is watched."""

    action: ClassVar[Action] = Action.warn
    sample: ClassVar[int] = 0
    every: ClassVar[int] = 1
    max_tokens: ClassVar[int] = 1

    def findings(self, record: Mapping[str, float], start: Mapping[str, float]) -> list[Finding]:
        """None ever."""
        return []


@dataclass(frozen=True)
class Drift:
    """Bounds on how far the chosen sides may fall below the reference, and on how many answers may break.

    A preference loss only asks that the rejected side fall further than the chosen one. When both fall, margins and
    accuracies are perfect and the probability goes to text that is on neither side. None stands for no bound.
    """

    action: Action = Action.warn
    lost_per_token: float | None = 0.01
    """Nats a scored token that chosen sides may lose against the reference: the mean over the pairs of an update, of
    which those that have gained count 0."""
    chosen_per_token: float | None = None
    """The same with gains set against losses: later, and surer."""
    chosen: float | None = None
    """Nats a pair, with gains set against losses."""
    kl_per_token: float | None = 0.25
    """Nats a scored token of KL(reference, policy) on the chosen sides, where the loss computes it."""
    sample: int = 0
    """How many questions are answered greedily, at the start and then every so many updates; 0 for none."""
    every: int = 50
    """Updates between two samples."""
    max_tokens: int = 512
    """Longest answer; one that does not end before has run on."""
    unparsed: float | None = 0.1
    """Share of a sample without a final answer, above the share at the start."""
    run_on: float | None = 0.1
    """Share of a sample that runs on, above the share at the start."""

    def __post_init__(self) -> None:
        positive(lost_per_token=self.lost_per_token, chosen_per_token=self.chosen_per_token)
        positive(chosen=self.chosen, kl_per_token=self.kl_per_token)
        at_least(0, sample=self.sample)
        at_least(1, every=self.every, max_tokens=self.max_tokens)
        within(0, 1, unparsed=self.unparsed, run_on=self.run_on)

    def findings(self, record: Mapping[str, float], start: Mapping[str, float]) -> list[Finding]:
        """Every number of an update that has passed its bound; a number that the record lacks passes none."""
        looks = (
            ("lost_per_token", self.lost_per_token, record.get("chosen_lost_per_token"), "nats a token"),
            ("chosen_per_token", self.chosen_per_token, _lost(record, "logratios/chosen_per_token"), "nats a token"),
            ("chosen", self.chosen, _lost(record, "logratios/chosen"), "nats a pair"),
            ("kl_per_token", self.kl_per_token, record.get("kl/chosen_per_token"), "nats a token"),
            ("unparsed", self.unparsed, _rise(record, start, UNPARSED), "of the answers"),
            ("run_on", self.run_on, _rise(record, start, RUN_ON), "of the answers"),
        )
        return [
            Finding(kind, value, _words(kind, value, bound, unit, record))
            for kind, bound, value, unit in looks
            if bound is not None and value is not None and value > bound
        ]


def first_sample(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """What the first sample gave, by the lines of metrics.jsonl; nothing where they hold none."""
    for line in lines:
        if UNPARSED in line:
            return {name: float(line[name]) for name in (UNPARSED, RUN_ON)}
    return {}


def advice(algo: object) -> str:
    """What to change, of the settings that this loss has."""
    words = ["lower optim.lr"]
    words += ["raise algo.beta"] if hasattr(algo, "beta") else []
    words += ["give the chosen side a supervised term (algo.sft_weight)"] if hasattr(algo, "sft_weight") else []
    return listed(words, "or")


def listed(words: Sequence[str], link: str) -> str:
    """a, b or c."""
    *before, last = words
    return f"{', '.join(before)} {link} {last}" if before else last


def _lost(record: Mapping[str, float], name: str) -> float | None:
    return -record[name] if name in record else None


def _rise(record: Mapping[str, float], start: Mapping[str, float], name: str) -> float | None:
    return record[name] - start.get(name, 0.0) if name in record else None


_WHAT = {
    "lost_per_token": "chosen sides have lost {value} {unit} against the reference",
    "chosen_per_token": "the chosen sides have lost {value} {unit} on the whole against the reference",
    "chosen": "the chosen sides have lost {value} {unit} on the whole against the reference",
    "kl_per_token": "the policy has moved {value} {unit} of KL away from the reference on the chosen sides",
    "unparsed": "{value} {unit} to sampled questions have lost their final answer since the start",
    "run_on": "{value} more {unit} to sampled questions do not end than at the start",
}


def _words(kind: str, value: float, bound: float, unit: str, record: Mapping[str, float]) -> str:
    share = kind in ("unparsed", "run_on")
    shown = f"{100 * value:.0f} %" if share else f"{value:.3g}"
    said = _WHAT[kind].format(value=shown, unit=unit) + f" (guard.{kind}: {bound:g})"
    if "chosen_fell" in record and not share:
        said += f", {100 * record['chosen_fell']:.0f} % of them fell"
    if record.get("rewards/accuracies", 0.0) > 0.5:
        said += f", and rewards/accuracies ({100 * record['rewards/accuracies']:.0f} %) does not show it"
    return said
