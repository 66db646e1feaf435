"""What the words of `stepdpo train` say of rounds, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stepdpo.cli import overrides
from stepdpo.cli.shorthands import key_of
from stepdpo.core.config import TARGET, build
from stepdpo.core.errors import UserError
from stepdpo.core.ranges import at_least

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
    pairs_with: str | list[str] | None = ""
    """Further words for `stepdpo pairs`."""

    def __post_init__(self) -> None:
        at_least(0, count=self.count)
        at_least(1, problems=self.problems)

    @property
    def words(self) -> list[str]:
        """For `stepdpo pairs`."""
        given = self.pairs_with.split() if isinstance(self.pairs_with, str) else map(str, self.pairs_with or [])
        return [f"pairs={self.pairs}", *given]

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "reference": self.reference.value}


def requested(node: DictConfig, manifest: Mapping[str, Any], given: Sequence[str]) -> Iterations | None:
    """The rounds that the words ask for, or that the resumed run of this manifest was started with; None for none.

    `node` is the section `rounds`, `manifest` is empty for a new run. Raises UserError for settings that cannot be
    meant, and for those that a resumed run may not change.
    """
    section: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    named = {key.removeprefix("rounds.") for key in map(key_of, given) if key.startswith("rounds.")}
    before = manifest.get("rounds")
    if manifest and not before and section.get("count"):
        raise UserError("the run was started without rounds; choose another run name")
    if before:
        for key in sorted(named.intersection(FIXED)):
            if section[key] != before[key]:
                raise UserError(f"the run was started with rounds.{key}={before[key]}, not {section[key]}")
        section = {**before, **{key: section[key] for key in named}}
    target = f"{Iterations.__module__}.{Iterations.__qualname__}"
    iterations: Iterations = build({TARGET: target, **section}, where="rounds")
    if iterations.count:
        _check_words(iterations, given)
        return iterations
    if "pairs" in named:
        raise UserError(f"pairs={iterations.pairs}: say how many rounds (rounds=3), or make pairs by `stepdpo pairs`")
    if alone := sorted(named - {"count"}):
        raise UserError(f"rounds.{alone[0]}: there are no rounds; say how many (rounds=3)")
    return None


def _check_words(iterations: Iterations, given: Sequence[str]) -> None:
    """Words of the training and of the pairs that the rounds set themselves, or that mean nothing to the pairs."""
    if any(key_of(word) in ("dataset", "dataset.path") for word in given):
        raise UserError("dataset: rounds train on the pairs that they make themselves")
    for word in iterations.words:
        if key_of(word).partition(".")[0] in OWN:
            raise UserError(f"rounds.pairs_with: {word}: that is for the rounds to say (problems: rounds.problems)")
    # Now, and not when the first round has come to its pairs, or the second after hours.
    try:
        overrides.check("pairs", iterations.words, sweep=False)
    except UserError as error:
        raise UserError(f"rounds.pairs_with: {error}") from error
