"""Worked examples before a question: which, in which form, and never the question itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepdpo.core.errors import UserError
from stepdpo.core.types import Problem, Turn
from stepdpo.data.shots import Shots, choose, must_suffice
from stepdpo.data.tasks import Task
from stepdpo.data.templates import NativeTemplate, TextTemplate
from stepdpo.tinymath.task import TinymathTask


def worked(number: int, solution: str = "It is {}.") -> Problem:
    return Problem(f"p{number}", f"What is {number}?", (str(number),), solution.format(number))


TEN = [worked(number) for number in range(10)]


def ids(problems: Any) -> list[str]:
    return [one.id for one in problems]


def test_they_are_spread_evenly_and_always_the_same() -> None:
    """Of ten, four: those at 0, 10/4, 20/4 and 30/4; the first that is left stands by."""
    shots = choose(4, TEN, "train")
    assert ids(shots.examples) == ["p0", "p2", "p5", "p7", "p1"]
    assert ids(shots.before("something else")) == ["p0", "p2", "p5", "p7"]
    assert ids(choose(10, TEN, "train").examples) == ids(TEN)


def test_a_question_is_never_among_its_examples() -> None:
    shots = choose(4, TEN, "test")
    assert ids(shots.before("what  is 5?\n")) == ["p0", "p2", "p7", "p1"]
    for problem in TEN:
        assert problem.id not in ids(shots.before(problem.question))
    must_suffice(shots, TEN)
    with pytest.raises(UserError, match=r"problem p3 is one of the 10 worked ones in task.shots_from=test"):
        must_suffice(choose(10, TEN, "test"), [worked(11), TEN[3]])


def test_only_worked_ones_and_each_question_once() -> None:
    some = [worked(1, ""), worked(2), worked(2), worked(3)]
    assert ids(choose(2, some, "train").examples) == ["p2", "p3"]
    with pytest.raises(
        UserError, match=r"task.shots=3: 2 of 4 problems there have a worked solution \(task.shots_from=train\)"
    ):
        choose(3, some, "train")
    with pytest.raises(UserError, match=r"task.shots=1: 0 of 1 problems there have a worked solution"):
        choose(1, [worked(1, " ")], "train")


def test_the_form_of_a_solution() -> None:
    """GSM8K's is without its notes for a calculator; one that states no answer is given it."""
    gsm8k = worked(7, "He has 3+4=<<3+4=7>>7.\n#### {}\n")
    first, turns = Shots(2, (gsm8k, worked(5))).turns("Q?")
    assert first == "What is 7?"
    assert turns == (
        Turn("assistant", "He has 3+4=7.\n#### 7"),
        Turn("user", "What is 5?"),
        Turn("assistant", "It is 5.\nThe answer is: 5"),
        Turn("user", "Q?"),
    )


def test_blocks_of_text_in_a_text_template() -> None:
    template = TextTemplate("mine", "Q: {question}\nA:", joint=" ", between="\n\n")
    first, turns = Shots(1, (worked(5),)).turns("Q?")
    asked: Any = None
    prompt = template.render(first, turns, asked)
    assert prompt.text == "Q: What is 5?\nA: It is 5.\nThe answer is: 5\n\nQ: Q?\nA:"


class Chat:
    chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
        return "".join(f"<{one['role']}>{one['content']}" for one in messages) + "<assistant>"


def test_turns_in_a_chat_template() -> None:
    first, turns = Shots(1, (worked(5),)).turns("Q?")
    chat: Any = Chat()
    prompt = NativeTemplate(system="S").render(first, turns, chat)
    assert prompt.text == "<system>S<user>What is 5?<assistant>It is 5.\nThe answer is: 5<user>Q?<assistant>"


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_where_a_task_has_them_from(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n}?", "answer": f"It is {n}.\n#### {n}"} for n in range(4)]
    file = write(tmp_path / "mine.jsonl", rows)
    assert Task("t", str(file)).examples() is None
    with pytest.raises(UserError, match=r"task.shots_from=train: .*mine.jsonl is one file and has no splits"):
        Task("t", str(file), shots=2).examples()
    shots = Task("t", str(file), limit=1, shots=2, shots_from=str(file)).examples()
    assert shots is not None
    assert [one.question for one in shots.examples] == ["What is 0?", "What is 2?", "What is 1?"]
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "test.jsonl", rows[:1])
    write(folder / "train.jsonl", rows[1:])
    task = Task("t", str(folder), shots=3)
    assert len(task.problems()) == 1
    shots = task.examples()
    assert shots is not None
    assert [one.question for one in shots.examples] == ["What is 1?", "What is 2?", "What is 3?"]
    with pytest.raises(UserError, match=r"task.shots=4: 3 of 3 problems"):
        Task("t", str(folder), shots=4).examples()
    with pytest.raises(ValueError, match="shots"):
        Task("t", str(folder), shots=-1)


def test_the_miniature_has_them_from_another_split_or_a_file(tmp_path: Path) -> None:
    assert TinymathTask(count=2).examples() is None
    shots = TinymathTask(count=2, shots=3).examples()
    assert shots is not None
    assert len(shots.examples) == 4
    assert all(one.meta["split"] == "train" for one in shots.examples)
    assert shots == TinymathTask(count=9, shots=3).examples()
    file = write(
        tmp_path / "mine.jsonl", [{"question": "1 + 1?", "answer": "2", "solution": "It is 2."}, {"nothing": "x"}]
    )
    shots = TinymathTask(shots=1, shots_from=str(file)).examples()
    assert shots is not None
    assert [(one.question, one.answers, one.solution) for one in shots.examples] == [("1 + 1?", ("2",), "It is 2.")]
    with pytest.raises(ValueError, match="none of the name 'trian'"):
        TinymathTask(shots_from="trian")
