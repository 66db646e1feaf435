"""Quick and quiet: one thread a process, no deadlines. A tiny model and a few step pairs stand in for real ones."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from support.corrupted import corrupt

from stepdpo.data.preference_file import write_preferences
from stepdpo.tinymath.problems import problems

# A shell's background jobs ignore Ctrl-C, and so would the commands started here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
settings.register_profile("stepdpo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stepdpo")


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches of the tests, and of all they start, are their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPDPO_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def pytest_runtest_teardown() -> None:
    """A worker silences the log of its whole process; run within this one, it must not silence the next test's."""
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The miniature's tokenizer: byte-level BPE, no beginning-of-text token."""
    from support import tiny

    return tiny.tokenizer()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder in Hugging Face format; the embeddings are tied."""
    from support.tiny import save_model

    return save_model(tmp_path_factory.mktemp("models") / "tied", tied=True)


@pytest.fixture(scope="session")
def untied_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a head of its own."""
    from support.tiny import save_model

    return save_model(tmp_path_factory.mktemp("models") / "untied", tied=False)


@pytest.fixture(scope="session")
def blocks_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tied one with rows of 64 and 128 numbers, whole blocks of 4-bit codes."""
    from support.tiny import save_model

    return save_model(tmp_path_factory.mktemp("models") / "blocks", tied=True, hidden=64)


@pytest.fixture(scope="session")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """preferences.jsonl of 28 step pairs: a right step, and the same with another result."""
    path = tmp_path_factory.mktemp("data") / "preferences.jsonl"
    pairs = [corrupt(p.question, p.solution, number) for number, p in enumerate(problems("preference", 28))]
    write_preferences(pairs, path)
    return path


@pytest.fixture(scope="session")
def pairs_words(preferences: Path) -> list[str]:
    """Words that all runs share: six updates, of which the last of each epoch is smaller."""
    return [
        "dataset=jsonl", f"dataset.path={preferences}", "dataset.heldout=4", "batch.pairs=10", "batch.tokens=400",
        "epochs=2", "optim.lr=1e-3", "log_every=1", "eval_every=3", "save_every=2", "keep=9",
        "template=alpaca", "~recipe",
    ]  # fmt: skip
