"""Solutions of the embedded miniature, right ones and spoilt ones, made rather than read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from stepdpo.core.package_data import sources
from stepdpo.core.ranges import at_least
from stepdpo.core.types import Preference, Problem
from stepdpo.data.validation import Loaded, check_heldout, gather
from stepdpo.tinymath.habits import Habits
from stepdpo.tinymath.problems import check_split


@dataclass(frozen=True)
class TinymathSolutions:
    """Gold solutions of generated problems, for supervised training: chosen = solution, nothing rejected."""

    split: str = "train"
    """train or test; the two share no question."""
    count: int = 2000
    """How many problems."""
    seed: int = 0
    """Chooses the problems, and the held-out ones among them."""
    heldout: float | str = 0
    """Solutions kept from training: a number, or a share (0.05, "5%")."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_heldout(self.heldout)
        at_least(1, count=self.count)
        check_split(self.split)

    def fingerprint(self) -> str:
        return _fingerprint(self)

    def load(self) -> Loaded:
        """Generate the problems and take their solutions."""
        from stepdpo.tinymath.problems import problems

        good = [_supervised(problem, problem.solution) for problem in problems(self.split, self.count, self.seed)]
        return gather(good, [], {}, heldout=self.heldout, seed=self.seed, max_bad=0.0)


@dataclass(frozen=True)
class TinymathDemonstrations:
    """Long stories with solutions that habits have spoilt, for the base that preferences are to mend."""

    split: str = "train"
    """train or test; the two share no question."""
    count: int = 16000
    """How many problems."""
    seed: int = 0
    """Chooses the problems, the mistakes, and the held-out ones among them."""
    heldout: float | str = 0
    """Solutions kept from training: a number, or a share (0.05, "5%")."""
    habits: Habits = Habits()  # noqa: RUF009 - frozen
    """How often they go wrong, and where."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_heldout(self.heldout)
        at_least(1, count=self.count)
        check_split(self.split)

    def fingerprint(self) -> str:
        return _fingerprint(self)

    def load(self) -> Loaded:
        """Generate the problems and work them with the habits."""
        from stepdpo.tinymath.demonstrations import demonstrations

        made = demonstrations(self.split, self.count, self.seed, self.habits)
        good = [_supervised(problem, demonstration.text) for problem, demonstration in made]
        return gather(good, [], {}, heldout=self.heldout, seed=self.seed, max_bad=0.0)


def _fingerprint(part: TinymathSolutions | TinymathDemonstrations) -> str:
    """Hash of the settings, and of the code that makes the problems."""
    digest = hashlib.sha256(repr(part).encode())
    for file in sources(["tinymath/*.py"]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _supervised(problem: Problem, solution: str) -> tuple[Preference, str]:
    """A solution to be trained on, and where it comes from."""
    answer = ", ".join(problem.answers)
    return Preference(problem.question, "", solution, "", answer=answer, whole=True), problem.id
