"""The benchmark of decoders: what it counts, how its page reads, and the whole of it on a few problems."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from benchmarks import decoding_page
from benchmarks.decoding_localise import rules
from benchmarks.decoding_picture import svg
from benchmarks.decoding_speed import asked, written
from benchmarks.values import Solution
from stepdpo.core.types import Problem
from stepdpo.runtime.atomic_io import read_json

ROOT = Path(__file__).parents[2]


def test_the_lowest_step_and_the_steepest_fall() -> None:
    """Values .9 .4 .3: the lowest is the last step's, the steepest fall the second's."""
    problem = Problem("1", "Q", ("1",))
    made = [Solution(problem, "", ("a", "b", "c"), error) for error in (1, 2)]
    found = rules({"value": [[0.9, 0.4, 0.3]] * 2, "sum": [[0.0, 0.0, 0.0], [0.0, -1.0, -2.0]]}, made)
    assert found == {
        "lowest value": [False, True],
        "steepest fall": [True, False],
        "lowest sum": [False, True],  # of equal ones the first
    }


def test_what_a_log_says_was_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text(
        "tinymath: 257 problems\n256 responses, 21,194 tokens in 21.8 s (970 tokens/s)\n"
        "1 responses, 6 tokens in 4.1 s (1 tokens/s)\nstrict 56.0 %\n"
    )
    assert asked(log) == {"responses": 257, "tokens": 21_200}


def test_how_many_responses_are_written(tmp_path: Path) -> None:
    assert written(tmp_path / "none") == 0
    folder = tmp_path / "run/eval/tinymath"
    folder.mkdir(parents=True)
    (folder / "responses.jsonl").write_text('{"of": "x"}\n{"responses": []}\n{"responses": []}\n')
    assert written(tmp_path / "run") == 2


def test_a_picture_has_a_point_for_every_number_of_samples() -> None:
    rows = [
        {"name": "one", "points": [(100.0, 0.5, 0.02)]},
        {"name": "many", "points": [(100.0, 0.4, 0.02), (200.0, 0.5, 0.02), (400.0, 0.6, 0.02)]},
    ]
    root = xml.etree.ElementTree.fromstring(svg(rows, "tokens"))
    circles = [part for part in root if part.tag.endswith("circle")]
    assert len(circles) == 4
    assert circles[0].get("fill") == circles[1].get("fill") != circles[3].get("fill")
    up = [float(circle.get("cy", "")) for circle in circles]
    assert up[2] < up[1] == up[3] < up[0]  # the better line comes first; up is less


def test_the_page_says_what_was_measured() -> None:
    """Every table between its markers is the one that benchmarks/decoding.json gives."""
    text = (ROOT / decoding_page.PAGE).read_text()
    for name, part in decoding_page.tables(read_json(ROOT / "benchmarks/decoding.json")).items():
        assert f"<!-- bench-decoding {name} -->\n\n{part}\n\n<!-- end -->" in text, name


@pytest.mark.slow
@pytest.mark.exhaustive
def test_everything_on_a_few_problems(tmp_path: Path) -> None:
    """Twice: the second time all runs are there already."""
    command = [sys.executable, "-m", "benchmarks.decoding", "--quick", "--runs", str(tmp_path)]
    first = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = read_json(tmp_path / "decoding.json")
    assert [row["n"] for row in found["decoders"]["rows"]] == [8, 8, 8, 8, 4, 4, 2, 8, 4, 8, 8, 4]
    cost = {row["name"]: row["generated_tokens"] for row in found["decoders"]["rows"]}
    assert cost["greedy"] < cost["beam_value"]
    assert found["speed"]["same"] == {"batch": 24, "alone": 6}
    assert found["resumed"]["same"]
    assert found["localisation"]["rows"].keys() > {"step DPO", "value head", "8 roll-outs a step"}
    assert "CPU s\n" in first
    again = subprocess.run(
        [*command, "--only", "decoders"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert "CPU s\n" not in again
    assert read_json(tmp_path / "decoding.json")["decoders"] == found["decoders"]
