"""Run folders made here, by hand, in; rows, files and errors out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from stepdpo.core.errors import UserError
from stepdpo.core.types import Attempt, Grade
from stepdpo.evaluation.bootstrap import interval, p_value
from stepdpo.evaluation.statistics import mcnemar, summarise, wilson
from stepdpo.report.make import compare_runs, report
from stepdpo.runtime.atomic_io import write_json, write_jsonl, write_text

FIELDS = [
    "run", "model", "algo", "level", "prefix", "template", "dataset", "task", "decode", "grader", "n", "correct",
    "accuracy", "stderr", "ci_low", "ci_high", "base_accuracy", "delta", "p_value", "unparsed", "truncated",
    "mean_tokens",
]  # fmt: skip
CONFIG = {
    "algo": {"_target_": "stepdpo.algo.tdpo.TDPO", "beta": 0.4},
    "level": {"_target_": "stepdpo.data.level.Step", "prefix": "prompt"},
    "template": {"_target_": "stepdpo.data.templates.TextTemplate", "name": "alpaca"},
    "model": {"_target_": "stepdpo.models.load.Pretrained", "path": "some/model"},
    "dataset": {"_target_": "stepdpo.data.dataset.Dataset", "path": "some/data"},
}


def evaluate(run: Path, right: str, *, task: str = "gsm8k", decode: str = "greedy", extra: Any = None) -> None:
    """One attempt a letter: `+` correct, `-` wrong, `?` unparsed for strict; official never sees more than wrong."""
    verdicts = {"+": "correct", "-": "wrong", "?": "unparsed"}
    attempts = [
        Attempt(
            problem_id=f"p{i}", question=f"{i}+1?", answers=(str(i + 1),), response="...", tokens=10 * (i + 1),
            finish="length" if letter == "?" else "eos",
            official=Grade("correct" if letter == "+" else "wrong", "", ""), strict=Grade(verdicts[letter], "", ""),
        )
        for i, letter in enumerate(right)
    ]  # fmt: skip
    folder = run / "eval" / (task if decode == "greedy" else f"{task}-{decode}")
    folder.mkdir(parents=True)
    about = {"task": task, "decode": decode, "template": "alpaca", "model": "some/model"}
    write_json(folder / "summary.json", {**about, **summarise(attempts), **(extra or {})})
    write_jsonl(folder / "attempts.jsonl", [as_row(attempt) for attempt in attempts])


def as_row(attempt: Attempt) -> dict[str, Any]:
    """The agreed line of attempts.jsonl."""
    grades = {
        name: {"verdict": grade.verdict, "extracted": grade.extracted, "reason": grade.reason}
        for name, grade in (("official", attempt.official), ("strict", attempt.strict))
    }
    plain = ("problem_id", "question", "response", "tokens", "finish")
    return {**{key: getattr(attempt, key) for key in plain}, "answers": list(attempt.answers), **grades}


def make(root: Path, name: str, right: str, **options: Any) -> Path:
    run = root / name
    run.mkdir(exist_ok=True)
    write_text(run / "config.yaml", OmegaConf.to_yaml(CONFIG))
    evaluate(run, right, **options)
    return run


def only(rows: Sequence[dict[str, Any]], **values: Any) -> dict[str, Any]:
    """The one row of the reported run that has these values; rows of the base itself are left out."""
    found = [row for row in rows if values.items() <= row.items() and row.get("run") not in ("base", "start")]
    assert len(found) == 1
    return found[0]


def test_rows_against_the_base_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(tmp_path / "base", "++----")
    run = make(tmp_path, "tdpo", "+-+++?")
    rows = report([run], None, tmp_path / "out")
    row = only(rows, grader="strict")
    assert list(row) == FIELDS
    low, high = wilson(4, 6)
    assert row == {
        "run": "tdpo", "model": "some/model", "algo": "tdpo", "level": "step", "prefix": "prompt", "template": "alpaca",
        "dataset": "some/data", "task": "gsm8k", "decode": "greedy", "grader": "strict",
        "n": 6, "correct": 4, "accuracy": 4 / 6, "stderr": pytest.approx((4 / 6 * 2 / 6 / 6) ** 0.5),
        "ci_low": low, "ci_high": high, "base_accuracy": 2 / 6, "delta": pytest.approx(2 / 6), "p_value": mcnemar(3, 1),
        "unparsed": 1, "truncated": 1, "mean_tokens": 35.0,
    }  # fmt: skip
    assert only(rows, grader="official")["unparsed"] == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == rows
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| tdpo | tdpo | step (prompt) | alpaca | gsm8k | greedy | strict | 66.7 ± 19.2 (4/6) |" in text
    assert "+33.3" in text
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.json", "report.md"]
    shown = " ".join(capsys.readouterr().out.split())
    assert "template alpaca, task gsm8k, decode greedy" in shown
    assert "tdpo tdpo step (prompt) strict 66.7 ± 19.2 (4/6)" in shown


def test_without_a_base(tmp_path: Path) -> None:
    row = only(report([make(tmp_path, "dpo", "+-")], None, tmp_path / "out"), grader="strict")
    assert (row["base_accuracy"], row["delta"], row["p_value"]) == (None, None, None)


def test_base_may_be_given_or_named(tmp_path: Path) -> None:
    evaluate(tmp_path / "elsewhere" / "start", "--")
    runs = tmp_path / "runs"
    runs.mkdir()
    make(runs, "sft", "+-")
    given = make(runs, "given", "++")
    absolute = make(runs, "absolute", "++", extra={"base": str(tmp_path / "elsewhere" / "start")})
    beside = make(runs, "beside", "++", extra={"base": "sft"})
    rows = report([given], tmp_path / "elsewhere" / "start", tmp_path / "out")
    assert only(rows, grader="strict")["delta"] == 1.0
    rows = report([absolute, beside], None, tmp_path / "out")
    deltas = {row["run"]: row["delta"] for row in rows if row["grader"] == "strict"}
    assert (deltas["absolute"], deltas["beside"], deltas["start"]) == (1.0, 0.5, None)
    lost = make(runs, "lost", "++", extra={"base": "sftt"})
    with pytest.raises(UserError, match="did you mean 'sft'"):
        report([lost], None, tmp_path / "out")


def test_a_run_against_itself(tmp_path: Path) -> None:
    run = make(tmp_path, "dpo", "+-+")
    for row in report([run], run, tmp_path / "out"):
        assert (row["delta"], row["p_value"], row["base_accuracy"]) == (0.0, 1.0, row["accuracy"])


def test_several_tasks_and_decoders(tmp_path: Path) -> None:
    evaluate(tmp_path / "base", "--", task="gsm8k")
    run = make(tmp_path, "dpo", "++", task="gsm8k")
    evaluate(run, "+-", task="math")
    evaluate(run, "++", task="gsm8k", decode="vote")
    rows = [row for row in report([run], None, tmp_path / "out") if row["run"] == "dpo"]
    assert len(rows) == 6
    assert only(rows, task="gsm8k", decode="greedy", grader="strict")["delta"] == 1.0
    assert only(rows, task="gsm8k", decode="vote", grader="strict")["delta"] is None
    assert only(rows, task="math", grader="strict")["delta"] is None


def test_the_manifest_names_the_options(tmp_path: Path) -> None:
    run = make(tmp_path, "dpo", "+")
    write_json(run / "manifest.json", {"choices": {"algo": "mine", "dataset": "step_dpo_10k", "model": "pretrained"}})
    row = report([run], None, tmp_path / "out")[0]
    assert (row["algo"], row["dataset"], row["model"], row["level"]) == ("mine", "step_dpo_10k", "some/model", "step")


def test_a_run_without_config_is_still_reported(tmp_path: Path) -> None:
    evaluate(tmp_path / "hub", "+")
    row = report([tmp_path / "hub"], None, tmp_path / "out")[0]
    assert (row["algo"], row["prefix"], row["model"], row["template"]) == ("", "", "some/model", "alpaca")


def test_fewer_problems_in_the_base(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluate(tmp_path / "base", "+-")
    row = only(report([make(tmp_path, "dpo", "++++")], None, tmp_path / "out"), grader="strict")
    assert (row["accuracy"], row["base_accuracy"], row["delta"]) == (1.0, 0.5, 0.5)
    assert "over the 2 of 4 problems" in caplog.text


def test_compare(tmp_path: Path) -> None:
    control, dpo = make(tmp_path, "control", "+--+"), make(tmp_path, "dpo", "+++-")
    row = only(compare_runs(control, dpo), grader="strict")
    assert (row["a"], row["b"], row["n"], row["accuracy_a"], row["accuracy_b"]) == ("control", "dpo", 4, 0.5, 0.75)
    assert (row["gained"], row["lost"], row["delta"], row["p_value"]) == (2, 1, 0.25, 1.0)
    assert row["stderr"] == pytest.approx((11 / 16 / 4) ** 0.5)
    back = only(compare_runs(dpo, control), grader="strict")
    assert (back["delta"], back["p_value"]) == (-row["delta"], row["p_value"])
    with pytest.raises(UserError, match="share no task"):
        compare_runs(control, make(tmp_path, "math", "+", task="math"))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    make(tmp_path, "tdpo-step", "+")
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(UserError, match="no such run; did you mean 'tdpo-step'"):
        report([tmp_path / "tdpo-stp"], None, tmp_path / "out")
    with pytest.raises(UserError, match=r"never evaluated .* known: tdpo-step"):
        report([tmp_path / "unfinished"], None, tmp_path / "out")
    part = tmp_path / "unfinished" / "eval" / "gsm8k"
    part.mkdir(parents=True)
    (part / "summary.partial.json").write_text("{}")
    with pytest.raises(UserError, match="gsm8k: some problems have no answer yet; resume=true tries them again"):
        report([tmp_path / "unfinished"], None, tmp_path / "out")
    with pytest.raises(UserError, match="no such run; there are none"):
        report([tmp_path / "nowhere" / "x"], None, tmp_path / "out")
    with pytest.raises(UserError, match="no runs"):
        report([], None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_evaluations(tmp_path: Path) -> None:
    run = make(tmp_path, "dpo", "+-+")
    path = run / "eval" / "gsm8k" / "attempts.jsonl"
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    for damaged, message in [
        (text[:-20], r"attempts.jsonl:3: not JSON"),
        ("".join(lines[:2]), "2 attempts, and summary.json counts 3"),
        ("".join([*lines[:2], lines[0]]), "'p0' is answered more than once"),
        ('{"problem_id": "p0"}\n', "attempt 1: not an attempt"),
        ("", "0 attempts"),
    ]:
        path.write_text(damaged)
        with pytest.raises(UserError, match=message):
            report([run], None, tmp_path / "out")
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        report([run], None, tmp_path / "out")


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("eval/gsm8k/summary.json", text) for text in ("3", "[]", DEEP)),
        *(
            ("eval/gsm8k/summary.json", {"mistakes": mistakes})
            for mistakes in ("x", 3, [1], {"a": 1}, {"a": {"made": 1}}, {"a": {"made": "1", "reached": "2"}})
        ),
        *(("eval/gsm8k/summary.json", {"base": base}) for base in (3, ["a"], "\0")),
        *(("eval/gsm8k/attempts.jsonl", {"tokens": tokens}) for tokens in ("x", None, -1, float("inf"))),
        *(("eval/gsm8k/attempts.jsonl", {"problem_id": name}) for name in ([1], None)),
        ("eval/gsm8k/attempts.jsonl", {"strict": {"verdict": [1], "extracted": "", "reason": ""}}),
        ("eval/gsm8k/attempts.jsonl", DEEP),
        *(("config.yaml", text) for text in ("a: &x [*x]", "\0")),
        *(("manifest.json", text) for text in ("3", "[]", "null", '{"choices": 3}', '{"choices": ["a"]}', DEEP)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_strangers_run_is_refused_by_the_file_at_fault(tmp_path: Path, name: str, content: Any) -> None:
    run = make(tmp_path, "dpo", "+")
    path = run / name
    if isinstance(content, dict):
        content = json.dumps({**json.loads(path.read_text()), **content}) + "\n"
    path.write_text(content)
    with pytest.raises(UserError, match="has no eval" if "\\u0000" in content else Path(name).name):
        report([run], None, tmp_path / "out")


def test_other_questions_under_the_same_ids(tmp_path: Path) -> None:
    run, other = make(tmp_path, "a", "+"), make(tmp_path, "b", "+")
    path = other / "eval" / "gsm8k" / "attempts.jsonl"
    path.write_text(path.read_text().replace("0+1?", "another?"))
    with pytest.raises(UserError, match="different questions under id 'p0'"):
        compare_runs(run, other)


@pytest.mark.parametrize("payload", ["\x1b[2J\x1b[H", "[red]x[/red]", "[/nonsense]", "\u202egnp", "a\r\nb\x07"])
def test_names_cannot_steer_the_terminal(tmp_path: Path, payload: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(tmp_path, "dpo", "+", task=f"t{payload.replace('/', '_')}", extra={"template": payload})
    report([run], None, tmp_path / "out")
    compare_runs(run, run)
    shown = capsys.readouterr().out + (tmp_path / "out" / "report.md").read_text()
    assert not [letter for letter in shown if not letter.isprintable() and letter != "\n"]


def test_markup_in_names_is_shown_not_obeyed(tmp_path: Path) -> None:
    run = make(tmp_path, "dpo", "+", extra={"template": "<script>|`x` [a](javascript:b)"})
    report([run], None, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "<script>" not in text
    assert r"&lt;script>\|\`x\` \[a\](javascript:b)" in text
    assert {line.replace(r"\|", "").count("|") for line in text.splitlines() if line.startswith("|")} == {16}


def test_broken_config(tmp_path: Path) -> None:
    run = make(tmp_path, "dpo", "+")
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match="not readable as YAML"):
        report([run], None, tmp_path / "out")


def test_the_base_has_its_own_rows_first(tmp_path: Path) -> None:
    evaluate(tmp_path / "base", "+---")
    rows = report([make(tmp_path, "dpo", "++--")], None, tmp_path / "out")
    assert [(row["run"], row["grader"]) for row in rows[:2]] == [("base", "strict"), ("base", "official")]
    assert (rows[0]["accuracy"], rows[0]["delta"]) == (0.25, None)


def test_the_control_is_named_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten gained and none lost: exact McNemar p = 2 / 2^10; the other way round it is a loss; 1 to 1 is neither."""
    control = make(tmp_path, "sft", "-" * 10 + "+" * 10)
    better, worse = make(tmp_path, "dpo", "+" * 20), make(tmp_path, "bad", "-" * 20)
    same = make(tmp_path, "same", "+" + "-" * 9 + "-" + "+" * 9)
    report([better, worse, same, control], None, tmp_path / "out", control)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "dpo 100.0%, control sft 50.0%, n = 20, difference +50.0" in text
    assert "p = 0.002: beats its control" in text
    assert "p = 0.002: loses to its control" in text
    assert "p = 1: no sure difference" in text
    assert "beats its control" in capsys.readouterr().out


COUNTS = {"event mistaken": {"made": 1, "reached": 3}, "other": {"made": 0, "reached": 0}}


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for seed in ("seed0", "seed1"):
        (tmp_path / seed).mkdir()
        evaluate(tmp_path / seed / "base", "+-")
    dpo = [make(tmp_path / seed, "dpo", "++") for seed in ("seed0", "seed1")]
    rows = report([*dpo, make(tmp_path / "seed0", "sft", "+-")], None, tmp_path / "out")
    names = list(dict.fromkeys(row["run"] for row in rows))
    assert names == ["seed0/base", "seed1/base", "seed0/dpo", "seed1/dpo", "sft"]


def test_one_line_where_the_graders_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report([make(tmp_path, "same", "+-+"), make(tmp_path, "apart", "+?")], None, tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "/3)" in line or "/2)" in line] == ["same", "apart", "apart"]
    assert any("strict and official" in line for line in lines)
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.count("| same |") == text.count("| apart |") == 2


def test_kinds_of_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One run counts them and one does not; nobody reached a place for the other kind."""
    told = make(tmp_path, "told", "+-", extra={"mistakes": COUNTS})
    rows = report([told, make(tmp_path, "silent", "+-")], None, tmp_path / "out")
    assert [(row["run"], row["grader"]) for row in rows if "mistakes" in row] == [("told", "strict")]
    assert json.loads((tmp_path / "out" / "report.json").read_text())[0]["mistakes"] == COUNTS
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| run | event mistaken | other |\n| --- | --- | --- |\n| told | 33.3 (1/3) |  |\n" in text
    assert "33.3 (1/3)" in capsys.readouterr().out


def test_accuracies_by_kinds_of_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A column a run; a kind that one run has not met is empty there."""
    easy, hard = (
        {"n": 4, "accuracy": 0.75, "ci_low": 0.3, "ci_high": 0.95},
        {"n": 2, "accuracy": 0, "ci_low": 0, "ci_high": 0.66},
    )
    runs = [
        make(tmp_path, "one", "++", extra={"by": {"level": {"1": easy, "5": hard}}}),
        make(tmp_path, "two", "+-", extra={"by": {"level": {"1": hard}, "steps": {"2": easy}}}),
    ]
    rows = report(runs, None, tmp_path / "out")
    assert only([row for row in rows if row["run"] == "one"], grader="strict")["by"]["level"]["5"] == hard
    assert all("by" not in row for row in rows if row["grader"] == "official")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Accuracy in percent by level, with its 95 % interval" in text
    assert "| level | one | two |" in text
    assert "| 1 | 75.0 (30.0-95.0) of 4 | 0.0 (0.0-66.0) of 2 |" in text
    assert "| 5 | 0.0 (0.0-66.0) of 2 |  |" in text
    assert "| steps | two |" in text
    assert "75.0 (30.0-95.0) of 4" in capsys.readouterr().out


def test_runs_under_several_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each problem twice: the shares of right answers are compared, by the bootstrap over problems."""
    for name, right in (("base", ("+---", "+---")), ("new", ("++--", "+-+-"))):
        place = make(tmp_path, name, right[0]) / "eval" / "gsm8k"
        lines = []
        for seed, marks in enumerate(right):
            evaluate(tmp_path / f"{name}{seed}", marks)
            (file,) = (tmp_path / f"{name}{seed}").rglob("attempts.jsonl")
            lines += [json.dumps({**json.loads(line), "seed": seed}) for line in file.read_text().splitlines()]
        (place / "attempts.jsonl").write_text("".join(line + "\n" for line in lines))
        summary = json.loads((place / "summary.json").read_text())
        (place / "summary.json").write_text(json.dumps({**summary, "seeds": {"0": 0.0, "1": 0.0}}))
    row = only(report([tmp_path / "new"], None, tmp_path / "out"), run="new", grader="strict")
    assert (row["n"], row["correct"], row["base_accuracy"], row["delta"], row["seeds"]) == (4, 2, 0.25, 0.25, 2)
    assert (row["ci_low"], row["ci_high"]) == interval([1, 0.5, 0.5, 0])
    assert row["p_value"] == p_value([0, 0.5, 0.5, 0])
    assert "(2/4, 2 seeds)" in capsys.readouterr().out
    one = next((tmp_path / "new").rglob("attempts.jsonl"))
    one.write_text("".join(one.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"7 attempts, and summary.json counts 4"):
        report([tmp_path / "new"], None, tmp_path / "out")


def test_a_single_run_has_nothing_below_its_table(tmp_path: Path) -> None:
    report([make(tmp_path, "dpo", "+-")], None, tmp_path / "out")
    assert "##" not in (tmp_path / "out" / "report.md").read_text()


def test_a_picture_for_every_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(tmp_path / "base", "+---")
    run = make(tmp_path, "dpo", "++--")
    evaluate(run, "+", task="math")
    report([run], None, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.count("## ") == 1  # on math there is one run alone
    assert "## gsm8k, greedy" in text
    assert [line.split()[0] for line in text.splitlines() if "●" in line] == ["base", "dpo"]
    assert all(line.startswith("    ") for line in text.splitlines() if "●" in line)
    assert "●" in capsys.readouterr().out


def test_the_focus_is_held_against_every_other_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten gained and none lost: exact McNemar p = 2 / 2^10; against its like one gained, one lost: p = 1."""
    evaluate(tmp_path / "base", "-" * 10 + "+" * 10)
    focus, best = make(tmp_path, "dpo", "+" * 20), make(tmp_path, "best", "+" * 20)
    worse = make(tmp_path, "x`y", "-" * 20)
    report([focus, best, worse], None, tmp_path / "out", focus=tmp_path / "." / "dpo")
    wanted = [
        "dpo is above base by 50.0 ± 11.2 points (n = 20, p = 0.002)",
        "dpo shows no sure difference to best: +0.0 ± 0.0 points (n = 20, p = 1)",
        "dpo is above x`y by 100.0 ± 0.0 points (n = 20, p = 1.9e-06)",
    ]
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("dpo is") or "sure" in line] == [
        *wanted
    ]
    text = (tmp_path / "out" / "report.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        f"- {line}".replace("`", r"\`") for line in wanted
    ]
    report([focus, best, worse], None, tmp_path / "out", focus=worse)
    assert "x\\`y is below dpo by 100.0 ± 0.0 points" in (tmp_path / "out" / "report.md").read_text()


def test_the_focus_is_one_of_the_runs(tmp_path: Path) -> None:
    dpo, sft = make(tmp_path, "dpo", "+-"), make(tmp_path, "sft", "+-")
    with pytest.raises(UserError, match="dpo is none of the runs"):
        report([sft], None, tmp_path / "out", focus=dpo)
    evaluate(dpo, "+", task="math")
    rows = report([dpo, sft, make(tmp_path, "other", "+", task="math")], None, tmp_path / "out", focus=sft)
    assert {row["run"] for row in rows} == {"dpo", "sft", "other"}
    # On math the focus has no answers: nothing is said of it there.
    assert (tmp_path / "out" / "report.md").read_text().count("\n- ") == 1


def test_a_training_that_its_guard_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Strangers' lines, and names that steer or mark up, do no harm."""
    run = make(tmp_path, "dpo", "+-")
    quiet = make(tmp_path, "sft", "++")
    lines: list[Any] = [{"step": 40, "guard/chosen_per_token": 0.2, "loss": 1.0}, {"step": 60, "guard/kl`\x1b": 0.3}]
    write_jsonl(run / "metrics.jsonl", [*lines, {"guard/x": 1.0}, {"step": "7", "guard/y": 1.0}])
    with (run / "metrics.jsonl").open("a") as file:
        file.write("[1]\n")
    write_jsonl(quiet / "metrics.jsonl", [{"step": 10, "loss": 1.0}])
    report([run, quiet], None, tmp_path / "out")
    said = "dpo: its training passed bounds of its guard (chosen_per_token from update 40 on, kl"
    out = capsys.readouterr().out
    text = (tmp_path / "out" / "report.md").read_text()
    assert said in out
    assert "\x1b" not in out + text
    assert f"- {said}\\`" in text
    assert "guard (x" not in out + text
    assert "sft: its" not in out + text


def test_what_was_inspected_stands_below(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The share of hits, and the first two pairs with the rewards of their steps; texts are a stranger's."""
    run = make(tmp_path, "tdpo", "+-")
    rate = {"hits": 1, "share": 0.5, "ci_low": 0.1, "ci_high": 0.9}
    rules = {"lowest_sum": rate, "always_last": rate}
    summary = {
        "n": 3,
        "margins": {"n": 3, "mean": 0.25, **rate},
        "localisation": {"n": 2, "chance": 0.4, "rules": rules},
    }
    step = {"sum": -0.5, "text": "\nStep 1: a|b *c*\x1b[2J"}
    side = {"sum": -0.5, "first_error": 0, "steps": [step]}
    row = {"place": "f:1", "question": "q\n?", "margin": 1.0, "chosen": {**side, "first_error": None}, "rejected": side}
    folder = run / "inspect" / "own"
    folder.mkdir(parents=True)
    write_json(folder / "summary.json", summary)
    write_jsonl(folder / "inspect.jsonl", [row] * 3)
    report([run], None, tmp_path / "out")
    text, said = (tmp_path / "out" / "report.md").read_text(), capsys.readouterr().out
    assert "## tdpo: implicit rewards on own" in text
    assert text.count("f:1, margin +1.000: q ?") == 2
    cell = r"Step 1: a\|b \*c\*�\[2J"
    assert text.count(f"| 1 | -0.500 | {cell} | -0.500 | {cell} (first wrong step) |") == 2
    for written in (text, said):
        assert "The chosen side has the larger reward in 50.0 % (95 %: 10.0-90.0) of 3 pairs, by +0.250 on" in written
        assert "is the first wrong one in 50.0 % (95 %: 10.0-90.0) of 2 wrong solutions (chance 40.0 %" in written
        assert "\x1b" not in written
    (folder / "summary.json").write_text("[]")
    with pytest.raises(UserError, match="not what `stepdpo inspect` writes"):
        report([run], None, tmp_path / "out")


def test_evaluations_by_two_judges_are_two(tmp_path: Path) -> None:
    for judge in ("exact", "rollouts"):
        scorer = {"scorer": {"name": "judge", "judge": {"name": judge}}}
        evaluate(tmp_path / "run", "+-", decode=f"vote-{judge}", extra={"decode": "vote", **scorer})
    rows = report([tmp_path / "run"], None, tmp_path / "out")
    assert {row["decode"] for row in rows} == {"vote by judge (exact)", "vote by judge (rollouts)"}
