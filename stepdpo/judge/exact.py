"""The task's own exact step checker as a judge: the truth, where a task has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stepdpo.records import Problem
from stepdpo.workshop.solutions import Solution
from stepdpo.workshop.tools import Tools
from stepdpo.workshop.verdict import Judging, Verdict


@dataclass(frozen=True)
class Exact:
    """First wrong step by `checker.first_error`."""

    needs: ClassVar[frozenset[str]] = frozenset({"checker"})

    def __call__(self, problem: Problem, solution: Solution, tools: Tools) -> Judging:
        """Nothing is asked for."""
        yield from ()
        return Verdict(tools.checker.first_error(problem, solution.steps))
