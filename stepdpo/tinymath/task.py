"""The embedded miniature as a task: problems made by rule."""

from __future__ import annotations

from dataclasses import dataclass

from stepdpo.core.protocols import Checker
from stepdpo.core.ranges import at_least
from stepdpo.core.types import Problem
from stepdpo.data.problem_stream import ProblemStream, check_limit
from stepdpo.data.shots import Shots, check_shots, choose, is_file, read_worked
from stepdpo.tinymath.problems import Stories, check_split, stream


@dataclass(frozen=True)
class TinymathTask:
    """The embedded miniature: problems made by rule, so that they are never short and never known."""

    name: str = "tinymath"
    """What results are filed under."""
    split: str = "test"
    """train or test; the two share no question."""
    count: int = 1000
    """How many problems."""
    stories: Stories = Stories.short
    """short or long."""
    seed: int = 0
    """Chooses the problems."""
    limit: int | None = None
    """The first so many problems only."""
    checker: Checker | None = None
    """The exact step checker."""
    shots: int = 0
    """Worked examples before every question of an evaluation (few-shot)."""
    shots_from: str = "train"
    """The split that they are from, or a file of them."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_limit(self.limit)
        at_least(1, count=self.count)
        check_split(self.split)
        check_shots(self.shots)
        if not is_file(self.shots_from):
            check_split(self.shots_from)

    def problems(self) -> list[Problem]:
        """Generate the problems."""
        return list(self.stream())

    def examples(self) -> Shots | None:
        """The worked examples; None without any. UserError for a file with too few."""
        if not self.shots:
            return None
        if is_file(self.shots_from):
            return choose(self.shots, read_worked(self.shots_from), self.shots_from)
        count = self.shots + 1
        return choose(self.shots, list(stream(self.shots_from, count, self.seed, self.stories)), self.shots_from)

    def stream(self) -> ProblemStream:
        """The same, each made when it is asked for."""
        count = min(self.count, self.limit or self.count)
        stream(self.split, count, self.seed, self.stories)  # what cannot be meant is refused at once
        return ProblemStream(count, lambda: stream(self.split, count, self.seed, self.stories))
