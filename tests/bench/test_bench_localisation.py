"""Hit rates of several runs on the same solutions, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.localisation import read, table
from stepdpo.evaluation.localisation import ScoredSteps, localisation
from stepdpo.runtime.atomic_io import write_json, write_jsonl


def written(run: Path, sums: list[list[float]], errors: list[int | None], values: bool = False) -> Path:
    rows: list[dict[str, Any]] = [
        {"place": f"p{n}", "response": {"first_error": error, "steps": [{"sum": s} for s in own]}}
        for n, (own, error) in enumerate(zip(sums, errors, strict=True))
    ]
    wrong = [
        ScoredSteps(tuple(own), tuple(own), error, tuple(own) if values else ())
        for own, error in zip(sums, errors, strict=True)
        if error is not None
    ]
    folder = run / "inspect" / "tinymath"
    folder.mkdir(parents=True)
    write_jsonl(folder / "inspect.jsonl", rows)
    write_json(folder / "summary.json", {"localisation": localisation(wrong, 0.0 if values else None)})
    return run


def test_a_row_a_run_held_against_the_first(tmp_path: Path) -> None:
    """Of two wrong solutions of two steps `a` finds one and `b` both; a right one and one of one step do not count."""
    errors = [1, 0, None, 0]
    a = read(written(tmp_path / "a", [[0, -1], [0, -1], [0, 1], [-1]], errors), "tinymath")
    b = read(written(tmp_path / "b", [[0, -1], [-1, 0], [0, 1], [-1]], errors, values=True), "tinymath")
    lines = table([a, b])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[2], lines[3])]
    assert [cell[0] for cell in cells] == ["a", "b"]
    assert cells[0][1].startswith("50.0 (")
    assert cells[0][3:] == ["", "", ""]  # no value head, and nothing before it
    assert cells[1][1].startswith("100.0 (")
    assert cells[1][-1] == "1, 0, 1"  # one gained, none lost: the exact test of one coin has p = 1
    assert lines[-1].startswith("2 wrong solutions, 2.0 steps; chance 50.0; always first 50.0 (")
    other = read(written(tmp_path / "c", [[0, -1]], [1]), "tinymath")
    with pytest.raises(ValueError, match="c and a were asked about other solutions"):
        table([a, other])
