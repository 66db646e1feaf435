"""How the benchmark of value heads judges values, on solutions whose first wrong step is known."""

from __future__ import annotations

import pytest

from benchmarks.values import Solution, show
from stepdpo.core.types import Problem


def test_a_row_is_tuned_on_one_half_and_measured_on_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Four problems: values fall below .5 at the first wrong step, but for one right solution of the second half."""
    problems = [Problem(str(n), "Q", ("1",)) for n in range(4)]
    made = [
        Solution(problem, "", ("a", "b", "c"), error)
        for problem, errors in zip(problems, ([1, -1], [2, -1], [0, -1], [1, -1]), strict=True)
        for error in errors
    ]
    right = [0.9, 0.8, 0.7]
    values = [[v if one.error < 0 or n < one.error else 0.1 for n, v in enumerate(right)] for one in made]
    values[3] = [0.9, 0.8, 0.05]  # the right solution of the second problem
    show("x", values, made, 12.0)
    name, area, f1, named, passed, tokens = (cell.strip() for cell in capsys.readouterr().out.strip("| \n").split("|"))
    # Measured on problems 1 and 3: right beginnings 2 + 3 + 1 + 3 = 9, one of them .05; wrong ones 1 + 2 = 3, of .1
    assert (name, tokens) == ("x", "12")
    assert float(area) == pytest.approx(8 / 9, abs=5e-4)
    assert (float(named), float(passed)) == (100.0, 50.0)
    assert float(f1) == pytest.approx(100 * 2 * 0.5 / 1.5, abs=0.05)
