"""TRL's trainer sets variables of its own; none of them outlives a test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(os.environ)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    yield
    for name in set(os.environ) - set(before):
        monkeypatch.delenv(name)
