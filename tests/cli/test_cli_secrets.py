"""No key reaches a file of a run: not from the environment, the configuration or the command line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.commands import stepdpo

from stepdpo.cli import processes
from stepdpo.cli.main import app
from stepdpo.cli.worker import run_verb
from stepdpo.runtime.terminal import guard_output

CANARY = "sk-CANARY0123456789abcdef0123456789abcdef"
KEYS = {name: CANARY for name in ("WANDB_API_KEY", "HF_TOKEN", "OPENAI_API_KEY")}


def leaks(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and b"CANARY" in path.read_bytes()]


@pytest.fixture(scope="module")
def words(preferences: Path, tiny_model: Path) -> list[str]:
    return [
        f"model={tiny_model}", "dataset=jsonl", f"dataset.path={preferences}", "batch.pairs=8", "max_steps=2",
        "log_every=1", "save_every=1", "template=alpaca", "engine=local", "track=wandb", "track.mode=offline",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_with_wandb(words: list[str], tmp_path: Path) -> None:
    """Keys in the environment, and one that the configuration refers to."""
    by_name = "track.tags=[${oc.env:OPENAI_API_KEY}]"
    done = stepdpo("train", *words, by_name, "run=x", cwd=tmp_path, **KEYS)
    assert done.code == 0, done.said
    assert list((tmp_path / "runs" / "x" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert "${oc.env:OPENAI_API_KEY}" in (tmp_path / "runs" / "x" / "config.yaml").read_text()
    assert "CANARY" not in done.said
    assert leaks(tmp_path) == []


PLAIN = "CANARY-of-no-shape"
PLANTED: dict[str, tuple[str, ...]] = {
    "a key's name": ("pairs", "judge=openai", f"+judge.api_key={PLAIN}"),
    "a token's name": ("train", f"+engine.wandb_token={PLAIN}"),
    "a value's shape": ("train", f"track.group={CANARY}"),
    "a value of a sweep": ("train", "-m", f"track.group=a,{CANARY}"),
    "words for evaluations": ("train", f"then_with=judge.api_key={PLAIN}"),
    "a list of words for evaluations": ("train", f"then_with=['task.limit=3','++judge.api_key={PLAIN}']"),
    "words for the pairs of a round": ("train", "rounds=1", f"rounds.pairs_with='judge.token={PLAIN}'"),
    "a mapping": ("pairs", "judge=openai", f"+judge.extra={{api_key: {PLAIN}}}"),
    "a mapping in a mapping": ("pairs", "judge=openai", f"+judge.extra={{a: {{Authorization: 'Basic {PLAIN}'}}}}"),
    "JSON in a text": ("train", r"""track.group='{\"api_key\": \"CANARY-of-no-shape\"}'"""),
    "an address with a token": ("pairs", "judge=openai", f"judge.url=http://h/v1?token={PLAIN}"),
    "a percent-encoded address": (
        "pairs",
        "judge=openai",
        f"judge.url='http://h/v1?to=http%3A%2F%2Fi%3Ftoken%3D{PLAIN}'",
    ),
    "a signed address": ("train", f"dataset.path='https://b.s3.test/x?X-Amz-Date=2&X-Amz-Signature={PLAIN}'"),
    "another signed address": ("train", f"dataset.path='https://x.blob.test/x?sv=2&sig={PLAIN}&sp=r'"),
    "a user in an address": ("train", f"dataset.path='https://me:{PLAIN}@h/x'"),
    "a user without a password": ("train", f"dataset.path='https://{PLAIN}@h/x'"),
    "a flag and its value": ("train", "--api-key", PLAIN),
    "a flag with its value": ("train", f"--hf-token={PLAIN}"),
    "a default of the environment": ("pairs", "judge=openai", f"+judge.api_key=${{oc.env:NO_SUCH_NAME,{PLAIN}}}"),
    "the name of a run": ("train", "run=${oc.env:OPENAI_API_KEY}"),
    "the environment's value": ("train", "run=CANARY-of-the-environment"),
    "what only prints": ("train", "--cfg", "job", f"+track.api_key={PLAIN}"),
    "an option's file": ("train", "--config-dir", "options", "track=mine"),
    "an option's file, printed": ("train", "--config-dir", "options", "track=mine", "--cfg", "job"),
    "an option's file for evaluations": ("train", "--config-dir", "options", "then=tinymath", "then_with=decode=mine"),
}
"""How a key may come into a command -> its words."""


def refused(words: Sequence[str], capfd: pytest.CaptureFixture[str]) -> str:
    """What a command says that is refused; no key is in it."""
    with pytest.raises(SystemExit) as ended:
        app(list(words))
    said = "".join(capfd.readouterr())
    assert ended.value.code == 2
    assert "CANARY" not in said
    return said


@pytest.mark.parametrize("words", PLANTED.values(), ids=PLANTED)
def test_a_planted_key_ends_nowhere(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Refused before anything is written, and not shown either; the commands are those of the command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "CANARY-of-the-environment")
    options = tmp_path / "options"
    for group, more in (("track", "_target_: stepdpo.runtime.tracking.NoTracking"), ("decode", "a: {b: 1}")):
        (options / group).mkdir(parents=True)
        (options / group / "mine.yaml").write_text(f"{more}\nextra: {{header: [{{api_key: {PLAIN}}}]}}\n")
    assert "holds a secret" in refused(words, capfd)
    shutil.rmtree(options)
    assert leaks(tmp_path) == []
    assert list(tmp_path.rglob("*CANARY*")) == []


REFERRED = {
    "a template's text": ("train", "template.system=${oc.env:SOME_NAME}"),
    "a part of one": (
        "train",
        "template=mixed",
        "template.parts=[{prompt: '{question} ${oc.env:SOME_NAME}'}]",
    ),
    "a template's name": ("pairs", "template=alpaca", "template.name=${oc.env:SOME_NAME,none}"),
    "a task's name": ("eval", "task.name=${oc.env:SOME_NAME}"),
}
"""References to the environment in what would be written down resolved, whatever the name."""


@pytest.mark.parametrize("words", REFERRED.values(), ids=REFERRED)
def test_what_is_written_down_is_not_taken_from_the_environment(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOME_NAME", PLAIN)
    assert "cannot be taken from the environment" in refused(words, capfd)
    assert list(tmp_path.iterdir()) == []


def test_paths_that_a_reference_stands_for(
    tmp_path: Path, tiny_model: Path, preferences: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Of the model and the data, in the run, in the adapter, in the caches, on the terminal: nowhere."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"STEPDPO_HOME": str(tmp_path / "home"), "OPENAI_API_KEY": PLAIN}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "start", lambda verb, folder, engine, resume=False: run_verb(verb, folder, resume))
    monkeypatch.setattr("sys.argv", ["stepdpo"])
    place = tmp_path / PLAIN
    shutil.copytree(tiny_model, place / "m")
    (place / "p.jsonl").write_text(preferences.read_text() + '{"question": 3}\n')
    reference, model = "${oc.env:OPENAI_API_KEY}", "model='./${oc.env:OPENAI_API_KEY}/m'"
    train = [
        "train", model, "dataset=jsonl", f"dataset.path='{reference}/p.jsonl'", "dataset.max_bad=50%", "~recipe",
        "engine=local", "max_steps=1", "batch.pairs=8", "adapter=lora", "template=alpaca", "run=x",
    ]  # fmt: skip
    evaluate = ["eval", model, "task.limit=1", "decode.max_tokens=4", "template=alpaca", "run=y"]
    # Put back here and not by the fixture, which would do it when capfd's own streams are closed.
    with pytest.MonkeyPatch.context() as patch:
        for name in ("stdout", "stderr"):
            patch.setattr(f"sys.{name}", getattr(sys, name))
        guard_output()
        for words in (train, evaluate):
            with pytest.raises(SystemExit) as ended:
                app(words)
            assert ended.value.code == 0, capfd.readouterr()
        print(f"and whoever prints it: {PLAIN}")
    said = "".join(capfd.readouterr())
    assert "and whoever prints it: ***" in said
    assert "CANARY" not in said
    shutil.rmtree(place)
    assert (tmp_path / "runs" / "x" / "quarantine.jsonl").is_file()
    assert leaks(tmp_path) == []
    assert list(tmp_path.rglob("*CANARY*")) == []


def test_a_key_in_the_text_of_an_error(words: list[str], tmp_path: Path) -> None:
    """Of one that a worker raises, who knows the value that the configuration only refers to."""
    value = "CANARY-of-the-environment"
    done = stepdpo("train", *words, "dataset.path=${oc.env:OPENAI_API_KEY}", cwd=tmp_path, OPENAI_API_KEY=value)
    assert done.code == 2, done.said
    assert "***" in done.err
    assert "CANARY" not in done.said
    assert leaks(tmp_path) == []


def test_a_key_in_the_text_of_an_unforeseen_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "CANARY-of-the-environment")
    (tmp_path / "config.yaml").write_text("a: '${no_such_resolver:CANARY-of-the-environment}'\n")
    result = run_verb("train", tmp_path, resume=False)
    assert not result.ok
    result.write(tmp_path / "exit.json", 0)
    assert "CANARY" not in capsys.readouterr().err
    assert "CANARY" not in (tmp_path / "exit.json").read_text()
