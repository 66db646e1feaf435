"""The task's own exact step checker as a judge: the truth, where a task has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stepdpo.core.types import Problem
from stepdpo.pairs.engine.context import Tools
from stepdpo.pairs.judges.verdict import Judging, Verdict
from stepdpo.pairs.solutions import Solution


@dataclass(frozen=True)
class Exact:
    """First wrong step by `checker.first_error`."""

    needs: ClassVar[frozenset[str]] = frozenset({"checker"})

    def __call__(self, problem: Problem, solution: Solution, tools: Tools) -> Judging:
        """Nothing is asked for."""
        yield from ()
        return Verdict(tools.checker.first_error(problem, solution.steps))
