"""The task's own exact step checker as a judge: the truth, where a task has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stepdpo.core.types import Problem
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.judges.verdict import JudgeRequests, Verdict
from stepdpo.pairs.solutions import Solution


@dataclass(frozen=True)
class Exact:
    """First wrong step by `checker.first_error`."""

    needs: ClassVar[frozenset[str]] = frozenset({"checker"})

    def __call__(self, problem: Problem, solution: Solution, context: Context) -> JudgeRequests:
        """Nothing is requested."""
        yield from ()
        assert context.checker is not None, "a task without a checker is refused before"
        return Verdict(context.checker.first_error(problem, solution.steps))
