"""What the command line says of itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.commands import environment, stepdpo

from stepdpo.cli.help import help_for
from stepdpo.cli.main import app
from stepdpo.core.package_data import conf

HEAVY = ("torch", "hydra", "transformers", "deepspeed", "datasets", "rich.progress")
VERBS = sorted(path.stem for path in conf().glob("*.yaml"))
"""Those that take a configuration."""


def groups(verb: str) -> dict[str, str]:
    """Config groups of a verb, and the option of each when none is given."""
    found = {}
    for entry in yaml.safe_load((conf() / f"{verb}.yaml").read_text())["defaults"]:
        ((key, option),) = entry.items() if isinstance(entry, dict) else [(entry, "")]
        if isinstance(entry, dict) and not key.startswith("override "):
            found[key.removeprefix("optional ")] = "null" if option is None else str(option)
    return found


def options(group: str) -> set[str]:
    return {path.stem for path in (conf() / group).glob("*.yaml")}


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


@pytest.mark.parametrize(("verb", "group"), [(verb, group) for verb in VERBS for group in groups(verb)])
def test_help_lists_every_option_and_the_default(verb: str, group: str) -> None:
    (listed,) = re.findall(rf"^  {group} +(.+)  \[(.+)\]$", help_for(verb), re.MULTILINE)
    assert (set(listed[0].split(", ")), listed[1]) == (options(group), groups(verb)[group])


def test_every_group_belongs_to_a_verb() -> None:
    folders = {path.parent.name for path in conf().glob("*/*.yaml")}
    assert folders == {group for verb in VERBS for group in groups(verb)}


@pytest.mark.parametrize("verb", VERBS)
def test_help_lists_every_setting(verb: str) -> None:
    said = help_for(verb)
    settings = set(yaml.safe_load((conf() / f"{verb}.yaml").read_text())) - {"defaults", "hydra", "_target_"}
    assert all(f"\n  {setting}:" in said for setting in settings)
    assert f"  stepdpo {verb} " in said


def test_help_through_the_command_line(tmp_path: Path) -> None:
    assert stepdpo("train", "--help", cwd=tmp_path).out == help_for("train") + "\n"


def test_cfg_prints_the_configuration(tmp_path: Path) -> None:
    done = stepdpo("train", "algo=tdpo", "algo.beta=0.2", "--cfg", "job", cwd=tmp_path)
    assert done.code == 0
    config = yaml.safe_load(done.out)
    given = {"_target_": "stepdpo.algo.tdpo.TDPO", "beta": 0.2, "alpha": 0.5, "form": "tdpo2"}
    assert config["algo"] == {**given, "sft_weight": 0.0, "sft_scope": "scored"}
    assert not list(tmp_path.iterdir())


def test_no_words_show_the_verbs(tmp_path: Path) -> None:
    said = stepdpo(cwd=tmp_path).said
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert verbs > set(VERBS)
    assert all(verb.replace("_", "-") in said for verb in verbs)
