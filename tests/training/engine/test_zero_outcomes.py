"""What a setting came to, not what it says: `auto` decides the number format, and every group has the same patience."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import environment

from stepdpo.training.engine.zero import Zero


@pytest.mark.parametrize("key", ["bf16", "zero_optimization.stage", "optimizer"])
def test_what_has_a_setting_of_its_own_is_refused(key: str) -> None:
    node: Any = {"enabled": True}
    for name in reversed(key.split(".")):
        node = {name: node}
    with pytest.raises(ValueError, match=f"deepspeed.{key}: "):
        Zero(deepspeed=node)
    assert Zero(deepspeed={"zero_optimization": {"reduce_bucket_size": 500}}).deepspeed


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["auto", pytest.param("bfloat16", marks=pytest.mark.exhaustive)])
def test_the_first_update_and_the_patience_of_groups(dtype: str) -> None:
    """Adam's first step is as large as its rate, whichever word names bfloat16; DeepSpeed's groups wait as ours do."""
    command = [sys.executable, str(Path(__file__).parents[2] / "support" / "outcomes.py"), dtype]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stderr.splitlines()[-1])
    assert found["update"] == pytest.approx(1.0, rel=0.02)
    assert found["patience"] == 7
