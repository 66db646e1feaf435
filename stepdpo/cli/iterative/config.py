"""What the words of `stepdpo train` say of rounds, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stepdpo.cli import overrides as words_of
from stepdpo.core.config import TARGET, build
from stepdpo.core.errors import UserError
from stepdpo.core.package_data import conf

OWN = ("model", "template", "limit", "skip", "run", "runs", "force", "resume")
"""Words of `stepdpo pairs` that the rounds set."""
FIXED = ("reference", "pairs")
"""Settings that a resumed run keeps."""


class Reference(Enum):
    """What the policy of a round is held against."""

    sft = "sft"
    """The model before the first round."""
    previous = "previous"
    """The model that the round starts from."""


@dataclass(frozen=True)
class Iterations:
    """The section `rounds` of a training's configuration."""

    count: int = 0
    """How many; 0 for a training on a data set that is there."""
    reference: Reference = Reference.sft
    pairs: str = "siblings"
    """How pairs are made: an option of `stepdpo pairs`."""
    problems: int = 500
    """New problems a round."""
    pairs_with: Any = ""
    """Further words for `stepdpo pairs`."""

    def __post_init__(self) -> None:
        if self.count < 0 or self.problems < 1:
            raise ValueError("count must be at least 0, problems at least 1")

    @property
    def words(self) -> list[str]:
        """For `stepdpo pairs`."""
        given = self.pairs_with.split() if isinstance(self.pairs_with, str) else map(str, self.pairs_with or [])
        return [f"pairs={self.pairs}", *given]

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "reference": self.reference.value}


def chosen(node: DictConfig | None, started: Mapping[str, Any], given: Sequence[str]) -> Iterations | None:
    """The rounds that the words ask for, or that a resumed run was `started` with; None for a plain training.

    Raises UserError for settings that cannot be meant, and for those that a resumed run may not change.
    """
    now: dict[str, Any] = OmegaConf.to_container(node, resolve=True) if node is not None else {}  # type: ignore[assignment]
    named = {key.removeprefix("rounds.") for key in map(key_of, given) if key.startswith("rounds.")}
    before = started.get("rounds")
    if started and not before and now.get("count"):
        raise UserError("the run was started without rounds; choose another run name")
    if before:
        for key in sorted(named.intersection(FIXED)):
            if now[key] != before[key]:
                raise UserError(f"the run was started with rounds.{key}={before[key]}, not {now[key]}")
        now = {**before, **{key: now[key] for key in named}}
    rounds: Iterations = build({TARGET: f"{Iterations.__module__}.{Iterations.__qualname__}", **now}, where="rounds")
    if not rounds.count:
        if "pairs" in named:
            raise UserError(f"pairs={rounds.pairs}: say how many rounds (rounds=3), or make pairs by `stepdpo pairs`")
        return None
    if any(key_of(word) in ("dataset", "dataset.path") for word in given):
        raise UserError("dataset: rounds train on the pairs that they make themselves")
    for word in rounds.words:
        if key_of(word).partition(".")[0] in OWN:
            raise UserError(f"rounds.pairs_with: {word}: that is for the rounds to say (problems: rounds.problems)")
    words_of.check("pairs", rounds.words, [conf()], sweep=False)
    return rounds


def key_of(word: str) -> str:
    """What a word is about."""
    return word.partition("=")[0].lstrip("+~")
