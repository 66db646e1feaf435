"""One pool of workers for each module of grader tests, and the shared data where there are any."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepdpo.core.types import Problem
from stepdpo.evaluation.graders.pool import GradeMany, graders

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def grade_many() -> Iterator[GradeMany]:
    with graders() as many:
        yield many


@pytest.fixture(scope="session")
def shared_rows() -> Callable[[str], list[dict[str, Any]]]:
    """Rows of a file of the shared data; skips the test where it is not there."""
    folder = Path(os.environ.get("STEPDPO_SHARED", ROOT.parent / "shared")) / "data"

    def rows(name: str) -> list[dict[str, Any]]:
        path = folder / name
        if not path.exists():
            pytest.skip(f"no shared data at {path}")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]

    return rows


def problem(*answers: str, question: str = "") -> Problem:
    return Problem(id="p", question=question, answers=answers)
