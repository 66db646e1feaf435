"""The verb `check`: what it prints, what it refuses, and questions shared with tasks."""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stepdpo.cli.check import check
from stepdpo.cli.check_display import histogram
from stepdpo.cli.check_names import find_dataset
from stepdpo.core.errors import UserError, printable
from stepdpo.core.types import Pair, Preference, Problem
from stepdpo.data.contamination import Likeness, shared_questions
from stepdpo.data.dataset import Dataset

PAIR = {"question": "What is 2 + 3?", "prefix": "Step 1:", "chosen": " 5", "rejected": " 6"}
WORDS = [f"word{i}" for i in range(400)]


def run(path: Path, *rows: Any, **settings: Any) -> str:
    (path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    console = Console(file=io.StringIO(), width=120, force_terminal=settings.pop("terminal", False))
    dataset = Dataset(path=str(path / "d.jsonl"), max_bad=settings.pop("max_bad", 0))
    try:
        check(dataset, console=console, **settings)
    except UserError as error:
        return f"{console.file.getvalue()}\nREFUSED {error}"  # type: ignore[attr-defined]
    return str(console.file.getvalue())  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Quiz:
    name: str
    texts: tuple[str, ...]

    def problems(self) -> list[Problem]:
        return [Problem(id=f"{self.name}/{i}", question=text, answers=("1",)) for i, text in enumerate(self.texts)]


def test_it_prints_counts_lengths_and_marked_examples(tmp_path: Path) -> None:
    shown = run(tmp_path, PAIR, PAIR)
    assert "2  usable" in shown
    assert "1 x the same preference more than once" in shown
    assert "d.jsonl:1" in shown
    assert "characters" in shown
    assert "chosen    Step 1:« 5»" in shown
    assert "REFUSED" not in shown


def test_the_level_decides_what_is_marked(tmp_path: Path) -> None:
    def instance(p: Preference) -> Pair:
        return Pair(question=p.question, context="", chosen=p.prefix + p.chosen, rejected=p.rejected, chosen_ends=True)

    shown = run(tmp_path, PAIR, level=instance, examples=1)
    assert "chosen    «Step 1: 5<end of text>»" in shown


def test_bad_rows_are_shown_written_and_refused(tmp_path: Path) -> None:
    rows = [PAIR, PAIR | {"chosen": ""}, PAIR | {"chosen": 3}]
    shown = run(tmp_path, *rows, quarantine=tmp_path / "quarantine.jsonl", shown=1)
    assert "d.jsonl:2: column 'chosen' is empty" in shown
    assert "and 1 more" in shown
    assert "REFUSED 2 of 3 rows cannot be used" in shown
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 2
    assert "REFUSED" not in run(tmp_path, *rows, max_bad="70%")


@pytest.mark.parametrize(
    "payload", ["\x1b[2J", "\x1b]0;title\x07", "[red]x[/red]", "\u202etxt", "\x9b31m", "a\rb", "\x00"[:0] + "\x7f"]
)
def test_data_cannot_steer_the_terminal(tmp_path: Path, payload: str) -> None:
    rows = [{key: value + payload for key, value in PAIR.items()} | {f"column {payload}": 1}, {"question": payload}]
    shown = run(tmp_path, *rows, max_bad="60%")
    plain = payload.startswith("[red]")
    assert (payload in shown) == plain
    assert (payload in printable(payload)) == plain
    coloured = run(tmp_path, *rows, max_bad="60%", terminal=True)
    assert "\x1b[2J" not in coloured
    assert "\u202e" not in coloured


def test_lengths_can_be_tokens(tmp_path: Path) -> None:
    class Letters:
        def __call__(self, text: list[str], **options: Any) -> dict[str, list[list[int]]]:
            assert options == {"add_special_tokens": False}
            return {"input_ids": [[1] * 777 for _ in text]}

    shown = run(tmp_path, PAIR, tokenizer=Letters())
    assert "tokens" in shown
    assert "777" in shown


def test_histogram_shows_every_value() -> None:
    assert histogram([0] * 1000 + [100])[0] == "█"
    assert histogram([0] * 1000 + [100])[-1] == "▁"
    assert len(histogram([5])) == len(histogram([0, 0])) == 24


def test_shared_questions_are_listed_and_may_be_refused(tmp_path: Path) -> None:
    tasks = [Quiz("quiz", ("what is  2 + 3?", "Other?"))]
    shown = run(tmp_path, PAIR, tasks=tasks)
    assert "quiz: 2 problems, 1 training questions resemble one" in shown
    assert "1 x the same but for white space and case" in shown
    assert "quiz/0: What is 2 + 3?" in shown
    assert "REFUSED 1 training questions are problems of quiz" in run(tmp_path, PAIR, tasks=tasks, forbid_shared=True)


def test_only_numbers_differing_is_told_but_not_refused(tmp_path: Path) -> None:
    shown = run(tmp_path, PAIR, tasks=[Quiz("quiz", ("What is 12 + 30?",))], forbid_shared=True)
    assert "1 x the same but for its numbers" in shown
    assert "REFUSED" not in shown


def edited(text: str, rng: random.Random) -> str:
    """The text with one word in twenty replaced."""
    words = text.split()
    for _ in range(max(1, len(words) // 20)):
        words[rng.randrange(len(words))] = "zebra"
    return " ".join(words)


def test_recall_and_precision_on_made_questions() -> None:
    rng = random.Random(0)
    questions = [" ".join(rng.choices(WORDS, k=rng.randint(20, 60))) for _ in range(300)]
    problems = {"quiz": Quiz("quiz", tuple(questions)).problems()}
    spaced = [q.upper().replace(" ", " \n") for q in questions]
    assert {s.likeness for s in shared_questions(spaced, problems)} == {Likeness.EXACT}
    assert len(list(shared_questions(spaced, problems))) == 300
    found = list(shared_questions([edited(q, rng) for q in questions], problems))
    assert len(found) >= 0.95 * 300
    inside = [f"Read with care. {q} Show all of your work." for q in questions]
    assert len(list(shared_questions(inside, problems))) == 300
    stock = "How many of the {} are there in all if there are {} in each"
    others = [stock.format(*rng.choices(WORDS, k=2)) + " " + " ".join(rng.choices(WORDS, k=20)) for _ in range(300)]
    assert len(list(shared_questions(others, problems))) <= 3


def test_data_are_found_by_name_or_path(tmp_path: Path) -> None:
    assert isinstance(find_dataset("step_dpo_10k"), Dataset)
    (tmp_path / "d.jsonl").write_text(json.dumps(PAIR))
    assert find_dataset(str(tmp_path / "d.jsonl")).load().counts["usable"] == 1
    with pytest.raises(UserError, match="did you mean 'step_dpo_10k'"):
        find_dataset("step_dpo_10")
