"""Rows as files hold them: good ones in two formats, and a data set of any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stepdpo.data.dataset import Dataset

STEP = {
    "prompt": "What is 2 + 3?",
    "initial_reason_steps": "Let's think step by step. \nStep 1:",
    "chosen": " 2 + 3 = 5.",
    "rejected": " 2 + 3 = 6.",
    "full_chosen": " 2 + 3 = 5.\nStep 2: Done.",
    "full_rejected": " 2 + 3 = 6.\nStep 2: Done.",
    "answer": "5",
}
PAIR = {"prompt": "What is 2 + 3?", "chosen": "5", "rejected": "6"}
GOOD = [STEP | {"prompt": f"What is {n} + 3?"} for n in range(3)]


def write(path: Path, *rows: Any) -> Path:
    """The rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def load(path: Path, *rows: Any, **settings_: Any) -> Any:
    """What a data set of these rows loads."""
    return Dataset(path=str(write(path / "data.jsonl", *rows)), **settings_).load()
