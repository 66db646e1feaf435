"""Results that survive being stopped at any byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepdpo.core.errors import UserError
from stepdpo.core.types import Preference
from stepdpo.pairs.engine.requests import ProblemResult, Result
from stepdpo.pairs.engine.result_log import PREFERENCES, TREES, ResultLog, open_result_log
from stepdpo.runtime.run_folder import FINISHED, QUARANTINE


def finished(name: str, pairs: int = 1) -> ProblemResult:
    made = tuple(Preference(name, "p", f"c{i}", "r") for i in range(pairs))
    why = "pairs" if pairs else "no wrong sample"
    return ProblemResult(name, Result(made, why, {"samples": 2}, {"problem": name}), tokens=5, samples=2)


def write(folder: Path, *some: ProblemResult) -> None:
    result_log = ResultLog(folder)
    for one in some:
        result_log.add(one)
    result_log.close()


def test_what_was_added_is_there_under_its_final_name(tmp_path: Path) -> None:
    write(tmp_path, finished("a", 2), finished("b", 0))
    result_log = ResultLog(tmp_path)
    assert result_log.done == {"a", "b"}
    assert result_log.counts == {"samples": 4, "pairs": 2, "tokens": 10}
    assert result_log.outcomes == {"pairs": 1, "no wrong sample": 1}
    result_log.finish()
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
        result_log = ResultLog(folder)
        count = sum(end <= size for end in ends)
        assert result_log.done == set(names[:count])
        for name in names[count:]:
            result_log.add(finished(name))
        result_log.finish()
        for name in (PREFERENCES, TREES):
            expected = (tmp_path / "whole" / name.replace(".jsonl", ".partial.jsonl")).read_bytes()
            assert (folder / name).read_bytes() == expected
        for path in folder.iterdir():
            path.unlink()


def test_a_problem_whose_judge_failed_is_tried_again(tmp_path: Path) -> None:
    failed = ProblemResult("a", Result(outcome="no answer"), judge_reply="Step what?", failed=True)
    write(tmp_path, failed, finished("b"))
    result_log = ResultLog(tmp_path)
    assert (result_log.done, result_log.outcomes) == ({"b"}, {"no answer": 1, "pairs": 1})
    assert json.loads((tmp_path / QUARANTINE).read_text()) == {
        "problem": "a", "reason": "no answer", "answer": "Step what?",
    }  # fmt: skip
    result_log.add(finished("a"))
    result_log.close()
    again = ResultLog(tmp_path)
    assert (again.done, +again.outcomes, again.failed) == ({"a", "b"}, {"pairs": 2}, {})


def test_equal_pairs_of_a_problem_are_written_once(tmp_path: Path) -> None:
    pair = Preference("q", "p", "c", "r")
    write(tmp_path, ProblemResult("a", Result((pair, pair))))
    assert len((tmp_path / "preferences.partial.jsonl").read_text().splitlines()) == 1


def test_files_changed_from_outside_are_refused(tmp_path: Path) -> None:
    write(tmp_path, finished("a"))
    (tmp_path / "preferences.partial.jsonl").write_text("")
    with pytest.raises(UserError, match="changed from outside"):
        ResultLog(tmp_path)


def test_a_strange_line_is_named(tmp_path: Path) -> None:
    (tmp_path / FINISHED).write_text('{"problem": 1}\n')
    with pytest.raises(UserError, match=r"finished.jsonl:1"):
        ResultLog(tmp_path)


def test_a_users_mistake_leaves_nothing_behind_unless_the_run_was_resumed(tmp_path: Path) -> None:
    def mistaken(resume: bool) -> None:
        with open_result_log(tmp_path / "run", resume) as result_log:
            result_log.add(finished("a"))
            raise UserError("no")

    for resume in (False, True):
        with pytest.raises(UserError, match="no"):
            mistaken(resume)
        assert (tmp_path / "run").exists() is resume
