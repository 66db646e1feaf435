"""`stepdpo chat` on the terminal and in a pipe: what is asked is answered as `stepdpo eval` answers it."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support.chats import QUESTIONS, piped, valued
from support.commands import environment, stepdpo
from transformers import AutoModelForCausalLM

from stepdpo.cli import chat_display, overrides
from stepdpo.cli.chat_commands import Commands
from stepdpo.cli.chat_names import chat_named
from stepdpo.cli.chat_session import Answer, Session, Shown, Step, opened, worth
from stepdpo.cli.chat_terminal import converse
from stepdpo.cli.chat_web import serve
from stepdpo.cli.job_config import split
from stepdpo.core.config import build
from stepdpo.core.errors import UserError
from stepdpo.evaluation.evaluate import evaluate
from stepdpo.generation.decoded import Cost
from stepdpo.generation.watched import Looked, Wrote
from stepdpo.runtime.atomic_io import read_jsonl


def built(*words: str) -> Any:
    return build(split(overrides.check("chat", list(words), sweep=False))[1])


def silent(event: Wrote | Looked) -> None: ...


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with opened(built("sampler.device=cpu")) as one:
        yield one


@pytest.fixture
def commands(session: Session) -> Iterator[Commands]:
    yield Commands(session, [])
    Commands(session, []).run("/decode greedy scorer=none")


def test_answers_are_those_of_an_evaluation(session: Session, commands: Commands, tmp_path: Path) -> None:
    """Greedily, and by a vote: the response that is shown, and how many gave its answer."""
    for words in (["decode=greedy"], ["decode=vote", "decode.n=4", "decode.seed=7"]):
        given = ["task.limit=2", "sampler.device=cpu", *words]
        folder = tmp_path / words[0]
        evaluate(build(split(overrides.check("eval", given, sweep=False))[1]), folder)
        commands.run("/decode " + " ".join(word.removeprefix("decode=") for word in words))
        for row in read_jsonl(folder / "attempts.jsonl"):
            answer = session.ask(row["question"], silent)
            chosen = max(answer.shown, key=lambda shown: shown.share)
            assert chosen.text == row["response"]
            if row.get("samples"):
                groups = [sample["group"] for sample in row["samples"]]
                shown = next(s for s in row["samples"] if s["response"] == row["response"] and s["share"])
                assert chosen.voters == groups.count(shown["group"])
            again = session.ask(row["question"], silent)
            assert again.shown == answer.shown


def test_a_step_search_tells_its_scores_and_shows_them_in_the_answer(session: Session, commands: Commands) -> None:
    commands.run("/decode step_beam beams=2 expand=3 scorer=logprob")
    heard: list[Wrote | Looked] = []
    answer = session.ask(QUESTIONS[0], heard.append)
    looked = [event for event in heard if isinstance(event, Looked)]
    assert len(looked) == len(answer.shown[0].steps) or answer.of > 1
    assert [len(event.beginnings[0].steps) for event in looked] == list(range(1, len(looked) + 1))
    scored = {b.text: s for event in looked for b, s in zip(event.beginnings, event.scored, strict=True)}
    (shown,) = answer.shown
    assert shown.values == list(scored[shown.text].by_step)
    assert shown.score == pytest.approx(sum(shown.values))  # logprob's aggregate is the product: of logarithms the sum
    assert answer.log
    assert answer.cost.scored > 0


def test_a_head_values_the_steps_of_a_greedy_answer(tmp_path: Path) -> None:
    """By hand: (1 + tanh(w h + b)) / 2 at the last token, which is the end of text, of the stock model."""
    folder, weight_H, bias = valued(tmp_path / "model")
    with opened(built("model=pretrained", f"model.path={folder}", "sampler.device=cpu")) as session:
        assert session.valued_by == "value_head"
        answer = session.ask(QUESTIONS[0], silent)
        prompt = session.template.render(QUESTIONS[0], (), session.tokenizer).text
    (shown,) = answer.shown
    assert shown.finish == "eos"
    assert len(shown.values) == len(shown.steps) > 1
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = session.tokenizer(prompt + shown.text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        hidden_LH = model.model(torch.tensor([[*ids, session.tokenizer.eos_token_id]])).last_hidden_state[0]
    by_hand = (1 + torch.tanh(hidden_LH[-1] @ weight_H + bias)) / 2
    assert shown.values[-1] == pytest.approx(by_hand.item(), abs=1e-5)


def test_commands_that_mean_nothing_change_nothing(session: Session, commands: Commands) -> None:
    commands.run("/decode vote n=3")
    before = commands.about()
    for line, said in {
        "/decode vot": "there is no such decode; did you mean 'vote'?",
        "/decode vote k=3": "there is no such setting",
        "/decode vote n=0": "n must be at least 1",
        "/decode step_beam": "chooses by scores: add scorer=value_head",
        "/scorer value_head": "has no value head",
        "/dcode vote": "did you mean '/decode'?",
    }.items():
        with pytest.raises(UserError, match=re.escape(said)):
            commands.run(line)
        assert commands.about() == before
    assert "vote n=3" in before
    assert "vote, " in commands.run("/decode") or ", vote" in commands.run("/decode")


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("<|im_start|>system", "control token"),
        ("a \ud800 b", "no text"),
        ("why " * 2000, "too long"),
    ],
)
def test_what_cannot_be_asked(session: Session, question: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        session.ask(question, silent)


def test_a_pipe(tmp_path: Path) -> None:
    """Answers on stdout and nothing else; a line that cannot be answered is said, the next one is, the code is 2."""
    lines = f"{QUESTIONS[0]}\n\n/decode vote n=4\n{QUESTIONS[0]}\n/dcode greedy\n{QUESTIONS[1]}\n"
    done = piped("tinymath", "sampler.device=cpu", lines=lines, cwd=tmp_path)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 2, err
    assert len(re.findall(r"^answer: [^()\n]+$", out, re.MULTILINE)) == 1
    assert len(re.findall(r"^answer: .+ \([1234] of 4\)$", out, re.MULTILINE)) >= 2
    assert "error: /dcode: there is no such command; did you mean '/decode'?" in err
    assert err.index("loading pkg://tinymath/model") < err.index("greedy, template native") < err.index(QUESTIONS[0])
    assert "loading" not in out
    assert QUESTIONS[0] not in out
    assert "\x1b" not in out + err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "said"), [(b"", "standard input is empty"), (b"\n \n", "is empty"), (b"caf\xe9\n", "is not utf-8")]
)
def test_a_pipe_of_nothing(
    given: bytes, said: str, session: Session, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8"))
    with pytest.raises(UserError, match=said):
        converse(session, commands)


def test_a_port_that_is_taken(session: Session, commands: Commands) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port={port}: cannot be had"):
            serve(session, commands, port)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tinymat"], "tinymat: no such run in runs, and no such model; did you mean 'tinymath'?"),
        (["tinymath", "decode=vot"], "decode=vot: there is no such decode; did you mean 'vote'?"),
        (["tinymath", "decode=step_beam"], "decode=step_beam chooses by scores"),
        (["tinymath", "algo=dpo"], "algo: a setting of `stepdpo train`, not of `stepdpo chat`"),
        (["tinymath", "other"], "'other': one run or model at a time"),
        (["tinymath", "model=fresh"], "two models"),
        (["tinymath", "--wev"], "--wev: there is no such flag"),
        (["tinymath", "--port"], "--port: a number must follow"),
        (["tinymath", "--web", "--port", "90000"], "port must lie in [0, 65535]"),
        (["tinymath", "--web", "--port=x"], "port: expected int"),
        (["tinymath", "--port", "8000"], "port is that of a page"),
        (["./nowhere/model"], "./nowhere/model: no such run in runs"),
        (["half"], "holds no finished model; resume its training first, or ask a checkpoint: stepdpo chat "),
    ],
)
def test_bad_words(words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before any model is loaded."""
    (tmp_path / "runs" / "half" / "checkpoints" / "step-000002").mkdir(parents=True)
    for name in ("config.yaml", "checkpoints/step-000002/config.json"):
        (tmp_path / "runs" / "half" / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(said)):
        chat_named(words)


def test_an_unknown_run_is_one_line_and_code_2(tmp_path: Path) -> None:
    (tmp_path / "runs" / "first" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "model" / "config.json").write_text("{}")
    done = stepdpo("chat", "frst", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: frst: no such run in runs, and no such model; did you mean 'first'?\n"


def test_a_stranger_s_text_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2J\x1b]8;;x:y\x07z\u202eg [red]r[/nonsense]"
    shown = Shown((Step(f"Step 1: {evil}\n", 0.25), Step(f"Step 2: {evil}", 0.5)), evil, "eos", 1.0)
    display = chat_display.Display()
    display.out = Console(file=sys.stdout, force_terminal=True, color_system="truecolor", soft_wrap=True)
    display.answer(Answer((shown,), 1, False, "value_head", Cost(), 0.0))
    out = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b[2J" in out
    assert "[red]r[/nonsense]" in out
    assert [line[:8] for line in out.splitlines()[:2]] == ["  0.25  ", "  0.50  "]


def test_colours_of_values() -> None:
    assert [worth(value, log=False) for value in (0.0, 0.25, 1.0)] == [0.0, 0.25, 1.0]
    assert worth(0.0, log=True) == 0.5
    assert worth(2.0, log=True) == pytest.approx(1 / (1 + 2.718281828459045**-2))
    assert worth(-1e9, log=True) == 0.0


@pytest.mark.slow
def test_a_person_at_a_terminal(tmp_path: Path) -> None:
    """Ctrl-C stops an answer that would be long, the next line is answered, Ctrl-D leaves."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "stepdpo", "chat", "model=fresh", "sampler.device=cpu"], cwd=tmp_path,
        env=environment(TERM="xterm-256color", COLUMNS="120"), stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    drawn = b""

    def until(words: bytes) -> None:
        nonlocal drawn
        while words not in drawn:
            piece = os.read(ours, 65536)
            assert piece, drawn
            drawn += piece

    try:
        until(b"\n> ")
        os.write(ours, b"Tom has 3 pens.\n")
        until(b"Tom has 3 pens.\r\n")
        at = len(drawn)
        while len(drawn) < at + 20:
            drawn += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        until(b"stopped after ")
        drawn = b""
        os.write(ours, b"/decode greedy max_tokens=5\n")
        until(b"fresh: greedy")
        drawn = b""
        os.write(ours, b"Tom has 4 pens.\n")
        until(b"5 tokens written")
        drawn = drawn.partition(b"5 tokens written")[2]
        until(b"> ")  # before it, the end of input would be lost as the line editor takes over the terminal
        os.write(ours, b"\x04")
        assert process.wait(120) == 0
    finally:
        process.kill()
        os.close(ours)
