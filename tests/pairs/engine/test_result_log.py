"""Results that survive being stopped at any byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepdpo.core.errors import UserError
from stepdpo.core.types import Preference
from stepdpo.pairs.engine.requests import Finished, Made
from stepdpo.pairs.engine.result_log import FINISHED, PREFERENCES, QUARANTINE, TREES, Journal


def finished(name: str, pairs: int = 1) -> Finished:
    made = tuple(Preference(name, "p", f"c{i}", "r") for i in range(pairs))
    why = "pairs" if pairs else "no wrong sample"
    return Finished(name, Made(made, why, {"samples": 2}, {"problem": name}), tokens=5, samples=2)


def write(folder: Path, *some: Finished) -> None:
    journal = Journal(folder)
    for one in some:
        journal.add(one)
    journal.close()


def test_what_was_added_is_there_under_its_final_name(tmp_path: Path) -> None:
    write(tmp_path, finished("a", 2), finished("b", 0))
    journal = Journal(tmp_path)
    assert journal.done == {"a", "b"}
    assert journal.counts == {"samples": 4, "pairs": 2, "tokens": 10}
    assert journal.outcomes == {"pairs": 1, "no wrong sample": 1}
    journal.finish()
    assert {p.name for p in tmp_path.iterdir()} == {FINISHED, PREFERENCES, TREES}
    assert [json.loads(x)["chosen"] for x in (tmp_path / PREFERENCES).read_text().splitlines()] == ["c0", "c1"]


def test_stopped_at_any_byte_it_goes_on_with_whole_problems(tmp_path: Path) -> None:
    """Cut finished.jsonl anywhere: the other files are cut back to the last problem whose line is whole."""
    names = ["a", "b", "c"]
    write(tmp_path / "whole", *map(finished, names))
    log = (tmp_path / "whole" / FINISHED).read_bytes()
    ends = [i + 1 for i, byte in enumerate(log) if byte == 10]
    for size in range(len(log) + 1):
        folder = tmp_path / "cut"
        folder.mkdir(exist_ok=True)
        for path in (tmp_path / "whole").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / FINISHED).write_bytes(log[:size])
        journal = Journal(folder)
        count = sum(end <= size for end in ends)
        assert journal.done == set(names[:count])
        for name in names[count:]:
            journal.add(finished(name))
        journal.finish()
        for name in (PREFERENCES, TREES):
            expected = (tmp_path / "whole" / name.replace(".jsonl", ".partial.jsonl")).read_bytes()
            assert (folder / name).read_bytes() == expected
        for path in folder.iterdir():
            path.unlink()


def test_a_problem_whose_judge_failed_is_tried_again(tmp_path: Path) -> None:
    failed = Finished("a", Made(outcome="no answer"), quarantined="Step what?", failed=True)
    write(tmp_path, failed, finished("b"))
    journal = Journal(tmp_path)
    assert (journal.done, journal.outcomes) == ({"b"}, {"no answer": 1, "pairs": 1})
    assert json.loads((tmp_path / QUARANTINE).read_text()) == {
        "problem": "a", "reason": "no answer", "answer": "Step what?",
    }  # fmt: skip
    journal.add(finished("a"))
    journal.close()
    again = Journal(tmp_path)
    assert (again.done, +again.outcomes, again.failed) == ({"a", "b"}, {"pairs": 2}, {})


def test_equal_pairs_of_a_problem_are_written_once(tmp_path: Path) -> None:
    pair = Preference("q", "p", "c", "r")
    write(tmp_path, Finished("a", Made((pair, pair))))
    assert len((tmp_path / "preferences.partial.jsonl").read_text().splitlines()) == 1


def test_files_changed_from_outside_are_refused(tmp_path: Path) -> None:
    write(tmp_path, finished("a"))
    (tmp_path / "preferences.partial.jsonl").write_text("")
    with pytest.raises(UserError, match="changed from outside"):
        Journal(tmp_path)


def test_a_strange_line_is_named(tmp_path: Path) -> None:
    (tmp_path / FINISHED).write_text('{"problem": 1}\n')
    with pytest.raises(UserError, match=r"finished.jsonl:1"):
        Journal(tmp_path)
