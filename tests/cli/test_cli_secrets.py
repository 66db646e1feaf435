"""No key reaches a file of a run: not from the environment, the configuration or the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import stepdpo

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


@pytest.mark.parametrize("sweep", [(), ("-m", "algo=dpo,tdpo")])
@pytest.mark.parametrize("word", [f"+track.api_key={CANARY}", f"+engine.wandb_token={CANARY}", f"track.group={CANARY}"])
def test_a_key_as_a_word_is_refused(words: list[str], tmp_path: Path, word: str, sweep: tuple[str, ...]) -> None:
    done = stepdpo("train", *sweep, *words, word, cwd=tmp_path)
    assert done.code == 2
    assert "holds a secret" in done.err
    assert "${oc.env:NAME}" in done.err
    assert "CANARY" not in done.said
    assert leaks(tmp_path) == []
