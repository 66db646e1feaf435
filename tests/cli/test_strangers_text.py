"""What a stranger wrote (rows, names, cards, messages of other libraries) can never steer the terminal."""

from __future__ import annotations

import io
import json
import logging
import shutil
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepdpo.cli import main, processes, worker
from stepdpo.cli.job_result import JobResult
from stepdpo.runtime import terminal
from stepdpo.runtime.atomic_io import write_json, write_jsonl
from stepdpo.runtime.progress import Progress

EVIL = "\x1b[2J\x1b]8;;x:y\x07z\x1b]52;c;YQ==\x1b\\\x9b31m\x85\u202egnp\u2066\ra\x08b[red]c[/nonsense]\x1b\x1b[0m[3J"
"""Clears the screen, makes a link, writes the clipboard, turns the reading order, goes back in the line."""
Command = Callable[..., tuple[int, str]]


def harmful(text: str) -> list[str]:
    return [c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@pytest.fixture
def own_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever replaces these, pytest has its own again afterwards."""
    for name in ("stdout", "stderr", "excepthook", "argv"):
        monkeypatch.setattr(sys, name, getattr(sys, name))


@pytest.fixture
def command(own_streams: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """`stepdpo WORDS` with its worker in this process; the exit code, and what was said."""

    def start(verb: str, folder: Path, engine: Any, resume: bool = False) -> JobResult:
        return worker.run_verb(verb, folder, resume)

    def run(*words: object) -> tuple[int, str]:
        sys.argv = ["stepdpo", *map(str, words)]
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            main.main()
        return int(ended.value.code or 0), "".join(capfd.readouterr())

    monkeypatch.setattr(processes, "start", start)
    return run


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A stranger's, whose card names its template."""
    folder: Path = shutil.copytree(tiny_model, tmp_path / "model")
    text = "stepdpo.data.templates.TextTemplate"
    write_json(folder / "stepdpo.json", {"template": {"_target_": text, "name": EVIL, "prompt": "{question}"}})
    return folder


def test_rows_and_names_of_data(command: Command, tmp_path: Path) -> None:
    row = {"question": f"2 + 3? {EVIL}", "prefix": "Step 1:", "chosen": f" 5{EVIL}", "rejected": " 6", EVIL: 1}
    path = tmp_path / f"d{EVIL.replace('/', '')}.jsonl"
    write_jsonl(path, [row, {**row, "chosen": [EVIL]}, {EVIL: EVIL}])
    code, said = command("check", path, "--max-bad", "90%")
    assert code == 0, said
    assert "3  rows" in said
    assert harmful(said) == []
    for words in ([path], [path, "--format", EVIL]):
        code, said = command("check", *words)
        assert (code, harmful(said)) == (2, [])
        assert "error: " in said


def test_a_strangers_model(command: Command, model: Path, preferences: Path, tmp_path: Path) -> None:
    """Its card, told by `eval`, by `pairs` and by a training that is resumed past a checkpoint with odd names."""
    small = ["decode.max_tokens=4", "task.limit=1", "task.split=preference"]
    code, said = command("eval", f"model={model}", "task=tinymath", *small, "run=e", f"runs={tmp_path}/runs")
    assert code == 0, said
    assert r"template \x1b[2J" in said
    assert harmful(said) == []
    code, said = command(
        "pairs", f"model={model}", "limit=1", "n=2", "max_tokens=4", "run=p", f"runs={tmp_path}/runs"
    )  # fmt: skip
    assert code == 2, said  # of a model that can do nothing no pairs come
    assert r"template \x1b[2J" in said
    assert harmful(said) == []
    words = [
        f"model={model}", "dataset=jsonl", f"dataset.path={preferences}", "~recipe", "engine=local", "run=t",
        f"runs={tmp_path}/runs", "save_every=1", "max_steps=2", "batch.pairs=8", "template=alpaca",
    ]  # fmt: skip
    code, said = command("train", *words)
    assert code == 0, said
    assert r"was trained with template=\x1b[2J" in said
    assert harmful(said) == []
    run = tmp_path / "runs" / "t"
    shutil.rmtree(run / "model")
    (run / "checkpoints" / "step-000001" / EVIL.replace("/", "")).write_text("")
    code, said = command("train", *words, "resume=true")
    assert r"skipped step-000001: \x1b[2J" in said
    assert harmful(said) == []


def test_a_strangers_run(command: Command, tmp_path: Path) -> None:
    """Names of the run, its settings, task, decoder, mistakes and base; what is logged; what is wrong with it."""
    grade = {"verdict": "correct", "extracted": "", "reason": ""}
    run = tmp_path / f"run{EVIL.replace('/', '')}"
    for folder, right in ((run, 2), (tmp_path / "base", 1)):
        attempts = [
            {
                "problem_id": f"{i}{EVIL}", "question": f"{i}", "response": EVIL, "tokens": 1, "finish": "eos",
                "answers": ["1"], "official": grade, "strict": grade,
            } for i in range(right)
        ]  # fmt: skip
        about = {
            "task": EVIL, "decode": EVIL, "template": EVIL, "model": EVIL, "n": right,
            "mistakes": {EVIL: {"made": 1, "reached": 1}},
        }  # fmt: skip
        (folder / "eval" / "task").mkdir(parents=True)
        write_json(folder / "eval" / "task" / "summary.json", about)
        write_jsonl(folder / "eval" / "task" / "attempts.jsonl", attempts)
        write_json(folder / "manifest.json", {"choices": {"algo": EVIL}})
    handler = logging.lastResort
    assert handler
    logging.getLogger("stepdpo").addHandler(handler)
    try:
        code, said = command("report", run, "--control", tmp_path / "base", "--focus", run)
    finally:
        logging.getLogger("stepdpo").removeHandler(handler)
    assert code == 0, said
    assert "delta is over the 1 of 2 problems" in said
    assert harmful(said) == []
    summary = run / "eval" / "task" / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "base": EVIL}))
    code, said = command("report", run)
    assert (code, harmful(said)) == (2, [])


def test_a_worker_prints_no_more_than_the_command(
    own_streams: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in the traceback of an error that nobody foresaw either."""

    def fail(*_: object) -> None:
        raise RuntimeError(f"unforeseen {EVIL}")

    monkeypatch.setattr(worker, "_verb", fail)
    monkeypatch.setattr(worker, "register", lambda *_: lambda: None)  # it would end this process
    sys.argv = ["worker", "train", str(tmp_path)]
    with warnings.catch_warnings():
        assert worker.main() == 1
    said = "".join(capfd.readouterr())
    assert r"RuntimeError: unforeseen \x1b[2J" in said
    assert harmful(said) == []


def test_lines_above_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """rich would make links and colours of what is printed while there is a bar, and markup of what is said."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("problem", 2) as progress:
        progress.say(f"said {EVIL}")
        print(f"printed {EVIL}")
        print(f"warned {EVIL}", file=sys.stderr)
    drawn = screen.getvalue()
    for start in ("said", "printed", "warned"):
        assert rf"{start} \x1b[2J\x1b]8;;x:y\x07z" in drawn
    assert all(one not in drawn for one in ("\x1b[2J", "\x1b]8", "\x1b]52", "\u202e", "\x9b"))
    assert sys.stdout is screen


def test_bars_of_other_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """tqdm goes back to the line's beginning, or up a line, each in a call of its own; colours are left out."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.StringIO())
    terminal.guard_output()
    terminal.guard_output()
    for stream in (sys.stdout, sys.stderr):
        for text in ("\r 50%", "\x1b[A", "\x1b[A\x1b[A", "a\r", "b\x1b[A", "\x1b[34mwandb\x1b[0m", "\x1b[A!\n"):
            stream.write(text)
    assert sys.stdout.getvalue() == r"\r 50%\x1b[A\x1b[A\x1b[Aa\rb\x1b[Awandb\x1b[A!" + "\n"  # type: ignore[attr-defined]
    assert sys.stderr.getvalue() == "\r 50%\x1b[A\x1b[A\x1b[A" + r"a\rb\x1b[Awandb\x1b[A!" + "\n"  # type: ignore[attr-defined]
