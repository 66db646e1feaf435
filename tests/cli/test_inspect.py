"""`stepdpo inspect`: a run is held against its start, on its own data, on other data and on a task's answers."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support import tiny
from support.trainings import Runs
from transformers import AutoModelForCausalLM

from stepdpo.cli import inspect_display
from stepdpo.cli.inspect_names import inspect_named
from stepdpo.cli.inspect_responses import of_task, with_steps
from stepdpo.core.errors import UserError
from stepdpo.core.steps import join_steps, split_steps
from stepdpo.core.types import Completion, Mark, Preference, Sampling
from stepdpo.models import value_head
from stepdpo.models.load import Pretrained
from stepdpo.report.inspected import inspections
from stepdpo.runtime.atomic_io import read_json, read_jsonl, write_json, write_jsonl
from stepdpo.runtime.terminal import PrintableStream
from stepdpo.tinymath.task import TinymathTask
from stepdpo.tokens.step_scores import Squash

EVIL = "\x1b[2J\x1b]8;;x:y\x07z\u202egnp\u2066\rb[red]c[/nonsense]"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, preferences: Path) -> Path:
    """The run `x`: a configuration as training writes it, and a model that has moved a little from its start."""
    root = tmp_path_factory.mktemp("inspected")
    given = [f"model.path={tiny_model}", "dataset=jsonl", f"dataset.path={preferences}", "dataset.heldout=4"]
    folder = Runs(root, ["model=pretrained", *given, "template=alpaca", "~recipe"]).write("x", "algo.beta=0.25")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tiny.perturb(model)
    model.save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    card = {"_target_": "stepdpo.data.templates.TextTemplate", "name": "alpaca", "prompt": tiny.ALPACA.prompt}
    write_json(folder / "model" / "stepdpo.json", {"template": {**card, "joint": "\n"}})
    return root


def found(runs: Path, *words: object, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    inspect_named(["x", f"runs={runs}", "show=1", *map(str, words)])
    folder = runs / "x" / "inspect" / name
    return read_json(folder / "summary.json"), read_jsonl(folder / "inspect.jsonl")


def test_pairs_of_a_file(runs: Path, preferences: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sums add up from tokens to the margin; the rejected step of a row is its first wrong one."""
    copy = runs / "pairs.jsonl"
    shutil.copy(preferences, copy)
    summary, rows = found(runs, f"dataset={copy}", name="pairs")
    said = capsys.readouterr().out
    given = {f"{copy}:{number}": row for number, row in enumerate(read_jsonl(copy), start=1)}
    assert [row["place"] for row in rows] == list(given)
    assert (summary["n"], summary["beta"], summary["beta_from"], summary["template"]) == (
        28,
        0.25,
        "algo.beta",
        "alpaca",
    )
    hits = 0
    for row in rows:
        own = given[row["place"]]
        for side in ("chosen", "rejected"):
            steps = row[side]["steps"]
            text = "".join(step["text"] for step in steps)
            whole = own["prefix"] + own[side] + own[f"{side}_rest"]
            assert text.removesuffix("<|im_end|>") == "\n" + whole  # Alpaca's joint, which the model writes itself
            for step in steps:
                assert step["text"] == "".join(token for token, _ in step["tokens"])
                assert step["sum"] == pytest.approx(sum(reward for _, reward in step["tokens"]), abs=1e-12)
                assert step["mean"] == pytest.approx(step["sum"] / len(step["tokens"]), abs=1e-12)
            assert row[side]["sum"] == pytest.approx(sum(step["sum"] for step in steps), abs=1e-12)
        assert row["margin"] == pytest.approx(row["chosen"]["sum"] - row["rejected"]["sum"], abs=1e-12)
        wrong = row["rejected"]["first_error"]
        assert wrong == own["prefix"].count("Step ") - 1
        assert own["rejected"] in row["rejected"]["steps"][wrong]["text"]
        sums = [step["sum"] for step in row["rejected"]["steps"]]
        hits += sums.index(min(sums)) == wrong
    assert summary["margins"]["mean"] == pytest.approx(sum(row["margin"] for row in rows) / 28)
    assert summary["margins"]["above_0"] == sum(row["margin"] > 0 for row in rows)
    assert summary["localisation"]["rules"]["lowest_sum"]["hits"] == hits
    chance = sum(1 / len(row["rejected"]["steps"]) for row in rows) / 28
    assert summary["localisation"]["chance"] == pytest.approx(chance)
    for part in ("first wrong step", "step of the lowest reward ", "chance (1 / steps)", "lowest tokens, rejected: "):
        assert part in said
    assert "\x1b" not in said


def test_the_runs_own_data_and_the_level(runs: Path) -> None:
    """What it held out is looked at first of all; a step of a pair is as much of its margin as of the solution's."""
    whole, rows = found(runs, name="own")
    assert whole["n"] == 4
    summary, steps = found(runs, "level=step", "limit=3", "beta=0.5", name="own")
    assert (summary["n"], summary["beta"], summary["beta_from"], summary["localisation"]["n"]) == (3, 0.5, "beta=", 0)
    assert all(len(row[side]["steps"]) == 1 for row in steps for side in ("chosen", "rejected"))
    by_place = {row["place"]: row for row in rows}
    for row in steps:
        (step,) = row["rejected"]["steps"]
        other = by_place[row["place"]]["rejected"]
        # Twice the beta; the same tokens, of which the label before them is read and not scored.
        same = other["steps"][other["first_error"]]["tokens"]
        count = len(step["tokens"])
        start = next(
            i for i in range(len(same)) if [t for t, _ in same[i : i + count]] == [t for t, _ in step["tokens"]]
        )
        for (_, twice), (_, once) in zip(step["tokens"], same[start : start + count], strict=True):
            assert twice == pytest.approx(2 * once, abs=1e-5)


def test_another_reference(runs: Path, preferences: Path) -> None:
    """Held against itself, a model prefers nothing."""
    model = runs / "x" / "model"
    summary, rows = found(
        runs, f"dataset={preferences}", f"reference_model={model}", "limit=5", name=preferences.parent.name
    )
    assert summary["reference"] == str(model)
    assert {abs(reward) < 1e-6 for row in rows for step in row["chosen"]["steps"] for _, reward in step["tokens"]} == {
        True
    }


def test_a_checkpoint_and_a_value_head(runs: Path) -> None:
    place = runs / "x" / "checkpoints" / "step-000002"
    shutil.copytree(runs / "x" / "model", place)
    generator = torch.Generator().manual_seed(0)
    weights = {"weight": torch.randn(1, 32, generator=generator), "bias": torch.zeros(1)}
    value_head.write(place, weights, Squash.sigmoid)
    summary, rows = found(runs, "checkpoint=step-000002", name="own-step-000002")
    values = [[step["value"] for step in row["rejected"]["steps"]] for row in rows]
    assert all(0 < value < 1 for some in values for value in some)
    errors = [row["rejected"]["first_error"] for row in rows]
    below = [next((i for i, value in enumerate(some) if value < 0.5), None) for some in values]
    rules = summary["localisation"]["rules"]
    assert rules["first_value_below_middle"]["hits"] == sum(a == b for a, b in zip(below, errors, strict=True))
    assert rules["lowest_value"]["hits"] == sum(v.index(min(v)) == e for v, e in zip(values, errors, strict=True))


def test_a_report_has_the_first_pairs(runs: Path) -> None:
    found(runs, name="own")
    section = next(one for one in inspections(runs / "x", "x") if one.title == "x: implicit rewards on own")
    assert len(section.pairs) == 2
    assert "The step of the lowest reward is the first wrong one in " in section.sentence
    written = section.markdown()
    assert written.count("(first wrong step)") == 2
    assert "## x: implicit rewards on own" in written
    (runs / "x" / "inspect" / "own" / "summary.json").write_text('{"of": 1}')
    with pytest.raises(UserError, match="not what `stepdpo inspect` writes"):
        inspections(runs / "x", "x")
    shutil.rmtree(runs / "x" / "inspect" / "own")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which run?"),
        (["xx"], "xx: no such run in .*; did you mean 'x'"),
        (["x", "y"], "'y': one run at a time"),
        (["x", "run=x"], "one run at a time"),
        (["x", "-m"], "--multirun: `stepdpo inspect` looks at one run"),
        (["x", "limt=3"], "limt: there is no such setting; did you mean 'limit'"),
        (["x", "task=tinymaht"], "there is no such task; did you mean 'tinymath'"),
        (["x", "algo=dpo"], "a setting of `stepdpo train`, not of `stepdpo inspect`"),
        (["x", "checkpoint=step-1"], "has no such checkpoint"),
        (["x", "limit=0"], "limit must be at least 1"),
        (["x", "samples=4"], "at temperature 0 are all the same"),
        (["x", "task=tinymath", "dataset=tinymath"], "give one of them"),
        (["x", "writer=reader"], "writer: did you mean"),
        (["x", "task=tinymath", "task.checker=null"], "nothing tells its wrong steps exactly"),
        (["x", "task=tinymath", "limit=1", "max_tokens=4"], r"nothing of it can be scored\n  1 answers"),
    ],
)  # fmt: skip
def test_mistaken_words(words: list[str], said: str, runs: Path) -> None:
    with pytest.raises(UserError, match=said):
        inspect_named([*words, f"runs={runs}"])


def test_what_is_no_finished_training(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(
        runs / "x", tmp_path / "unfinished", ignore=shutil.ignore_patterns("model", "checkpoints", "inspect")
    )
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "config.yaml").write_text("pairs: {}\n")
    for name, said in (
        ("empty", "has no config.yaml"),
        ("unfinished", "holds no finished model; resume its training first"),
        ("pairs", "is no run of `stepdpo train`"),
    ):
        with pytest.raises(UserError, match=said):
            inspect_named([name, f"runs={tmp_path}"])


def test_strangers_text(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither questions nor steps steer the terminal, nor are they markup."""
    row = {"question": f"2 + 3? {EVIL}", "prefix": "Step 1: 2\nStep 2:", "chosen": f" 5{EVIL}", "rejected": f" 6{EVIL}"}
    path = runs / "evil.jsonl"
    write_jsonl(path, [row])
    found(runs, f"dataset={path}", name="evil")
    said = capsys.readouterr().out
    assert r"2 + 3? \x1b[2J\x1b]8;;x:y\x07z\u202egnp" in said
    assert "b[red]c[/nonsense]" in said
    assert not {"\x1b", "\x07", "\u202e", "\u2066", "\r"} & set(said)


SIDE = {
    "sum": -0.5, "first_error": 1,
    "steps": [
        {"text": "Step 1: a", "sum": 0.5, "mean": 0.25, "label": 1.0, "tokens": [["Step 1:", 0.0], [" a", 0.5]]},
        {"text": "\nStep 2: b", "sum": -1.0, "mean": -0.5, "label": 0.0, "tokens": [["\nStep 2:", -1.0], [" b", 0.0]]},
    ],
}  # fmt: skip
ROW = {"place": "f:1", "question": "q?", "margin": 0.0, "chosen": {**SIDE, "first_error": None}, "rejected": SIDE}
SUMMARY = {
    "policy": "m", "reference": "r", "template": "t", "beta": 1.0, "beta_from": "algo.beta", "n": 1, "kind": "dataset",
    "of": "f", "left_out": {}, "localisation": {"n": 0, "one_step": 0},
}  # fmt: skip


def shown(**console: Any) -> str:
    out = Console(file=io.StringIO(), **console)
    inspect_display.inspection(out, SUMMARY, [ROW], 1)
    return str(out.file.getvalue())  # type: ignore[attr-defined]


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The strongest token is pure red, half of that is half faded, in green; others are as they are."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    drawn = shown(force_terminal=True, color_system="truecolor", width=140)
    assert "48;2;255;0;0m" in drawn
    assert "48;2;112;235;112m a" in drawn
    assert "lowest tokens" not in drawn
    line = next(line for line in drawn.splitlines() if "Step 1:" in line)
    assert line.count("Step 1:") == 2  # chosen next to rejected
    narrow = shown(force_terminal=True, color_system="truecolor", width=60)
    assert all(line.count("Step 1:") < 2 for line in narrow.splitlines())
    plain = shown(width=140)
    assert "\x1b" not in plain
    assert "+0.500 (mean +0.2500) [right]   Step 1: a" in plain
    assert "-1.000 (mean -0.5000) [lowest] [first wrong step]   Step 2: b" in plain
    assert r"lowest tokens, rejected: '\nStep 2:' -1.000, 'Step 1:' +0.000" in plain
    monkeypatch.setenv("NO_COLOR", "1")
    uncoloured = shown(force_terminal=True, width=140)
    assert "48;" not in uncoloured
    assert "lowest tokens" in uncoloured


def test_colours_pass_the_guard_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Printed through the stream that spells escape codes out, ours are there and a stranger's are not."""
    screen = io.StringIO()
    monkeypatch.setattr("sys.stdout", PrintableStream(screen, bars=False))
    row = {**ROW, "question": EVIL}
    inspect_display.inspection(Console(force_terminal=True, color_system="truecolor", width=140), SUMMARY, [row], 1)
    assert "48;2;255;0;0m" in screen.getvalue()
    assert "\x1b[2J" not in screen.getvalue()


WRITTEN = "Step 1: 1 + 1 = 2\nStep 2: 2 + 1 = 3\nThe answer is: 3"


def test_steps_of_a_task_are_checked(tiny_model: Path) -> None:
    """Right answers have no wrong step, a spoilt one has the checker's; what cannot be read is counted."""
    task = TinymathTask(count=4, checker=checker())
    problems = task.problems()
    spoilt = [problems[1].solution.replace("= ", "= 9", 1), "no steps at all", "Step 1: cut"]
    answers = [problems[0].solution, *spoilt]
    finishes = ["eos", "eos", "eos", "length"]
    asked: list[Any] = []

    class Scripted:
        @contextmanager
        def open(self, model: Any) -> Iterator[Scripted]:
            asked.append(model)
            yield self

        def sample(self, prompts: Any, params: Sampling) -> Any:
            asked.append(params)
            return [[Completion(a, 1, f)] for a, f in zip(answers, finishes, strict=True)]

    writer, sampling = Pretrained(str(tiny_model)), Sampling(max_tokens=9)
    made = of_task(task, writer, Scripted(), tiny.CHAT, sampling, None)
    assert asked == [writer, sampling]
    assert made.places == (problems[0].id, problems[1].id)
    assert made.left_out == {"answers without steps": 1, "answers cut at max_tokens": 1}
    right, wrong = made.pairs
    assert [mark.value for mark in right.chosen_steps] == [1.0] * len(split_steps(problems[0].solution)[1])
    assert wrong.chosen_steps[0].value == 0.0
    assert all(mark.value is None for mark in wrong.chosen_steps[1:])
    assert (right.chosen, right.rejected, right.chosen_ends) == (problems[0].solution, "", True)


def checker() -> Any:
    from stepdpo.tinymath.checker import TinymathChecker

    return TinymathChecker()


def test_steps_of_rows_without_marks() -> None:
    """By hand: the shared step is right, the rejected one wrong, and nobody knows what follows it."""
    pair = Preference(
        "q", "So.\nStep 1: a\nStep 2:", " b", " c", chosen_rest="\nStep 3: d", rejected_rest="\nStep 3: e"
    )
    made = with_steps(pair)
    assert made.rejected_steps == (Mark(13, 1.0), Mark(23, 0.0), Mark(33, None))
    assert made.chosen_steps == (Mark(13, 1.0), Mark(23, 1.0), Mark(33, None))
    assert join_steps(*split_steps(pair.prefix + " c"))[13:23] == "\nStep 2: c"
    valued = with_steps(replace(pair, chosen_value=1.0, rejected_value=0.5))
    assert [mark.value for mark in valued.rejected_steps] == [None, 0.75, None]  # worse, and yet not wrong
    for unknown in (replace(pair, whole=True), replace(pair, prefix="", chosen=WRITTEN, rejected=WRITTEN + ".")):
        assert {mark.value for mark in with_steps(unknown).rejected_steps} == {None}
    marked = replace(pair, rejected_steps=(Mark(13, 0.0),))
    assert with_steps(marked).rejected_steps == (Mark(13, 0.0),)
    alone = with_steps(replace(pair, rejected="", rejected_rest=""))
    assert (alone.rejected_steps, {mark.value for mark in alone.chosen_steps}) == ((), {None})


def test_json_is_plain(runs: Path) -> None:
    """No NaN, which JSON has no word for."""
    found(runs, "limit=1", name="own")
    text = (runs / "x" / "inspect" / "own" / "inspect.jsonl").read_text()
    assert "NaN" not in text
    assert math.isfinite(json.loads(text)["margin"])
