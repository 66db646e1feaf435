"""What the command line says of itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.commands import environment, stepdpo

HEAVY = ("torch", "hydra", "transformers", "deepspeed", "datasets", "rich.progress")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "algo=tdpo", "-h"], ["--version"]])
def test_help_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    code = f"""
import sys
sys.argv = ["stepdpo", *{words!r}]
from stepdpo.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_help_lists_groups_and_settings(tmp_path: Path) -> None:
    said = stepdpo("train", "--help", cwd=tmp_path).out
    assert "algo       dpo, kto, nca, sft, tdpo  [dpo]" in said
    assert "engine     local, zero  [zero]" in said
    assert "adapter    lora, none  [none]" in said
    assert "instance, step  [step]" in said
    assert "epochs: " in said
    assert "stepdpo train run=qwen resume=true" in said


def test_cfg_prints_the_configuration(tmp_path: Path) -> None:
    done = stepdpo("train", "algo=tdpo", "algo.beta=0.2", "--cfg", "job", cwd=tmp_path)
    assert done.code == 0
    config = yaml.safe_load(done.out)
    assert config["algo"] == {"_target_": "stepdpo.algo.tdpo.TDPO", "beta": 0.2, "alpha": 0.5, "form": "tdpo2"}
    assert not list(tmp_path.iterdir())


def test_no_words_show_the_verbs(tmp_path: Path) -> None:
    said = stepdpo(cwd=tmp_path).said
    for verb in ("train", "eval", "pairs", "report", "grade", "check"):
        assert verb in said
