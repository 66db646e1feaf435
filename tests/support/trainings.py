"""Trainings without the command line: in this process, or many in the same two processes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stepdpo.cli import processes, worker
from stepdpo.cli.job_config import LAUNCH_KEYS
from stepdpo.cli.job_result import ExitCode
from stepdpo.core.config import config_folders
from stepdpo.core.package_data import conf
from support.commands import environment

PROCESSES = 2


@dataclass(frozen=True)
class Job:
    """A run for `Runs.together`."""

    name: str
    of: str = ""
    """The run that it goes on with: what that left is copied, its configuration excepted."""
    gone: tuple[str, ...] = ()
    """What is taken away first."""


class Runs:
    """Run folders below one root, and the two ways to fill them."""

    def __init__(self, root: Path, common: Sequence[str]) -> None:
        self.root, self.common = root, common

    def write(self, name: str, *words: str) -> Path:
        """A run folder with its config.yaml."""
        folder = self.root / name
        folder.mkdir()
        with initialize_config_dir(str(conf()), version_base="1.3"):
            config = compose("train", overrides=[*self.common, *words])
        node: Any = OmegaConf.to_container(config, resolve=True)
        kept = {key: value for key, value in node.items() if key not in LAUNCH_KEYS}
        OmegaConf.save(OmegaConf.create(kept), folder / "config.yaml")
        return folder

    def local(self, name: str, *words: str) -> Path:
        """A run of one process: this one."""
        folder = self.write(name, "engine=local", *words)
        code, message = self.go_on(folder, resume=False)
        assert code == ExitCode.OK, message
        return folder

    def go_on(self, folder: Path, resume: bool = True) -> tuple[int, str]:
        """Run a folder that has its configuration; the exit code and the message."""
        with config_folders([Path(__file__).parents[1] / "conf"]):  # parts of the tests' own, as of --config-dir
            result = worker.run_verb("train", folder, resume)
        return result.code, result.message

    def cut(self, name: str, of: str, *gone: str) -> Path:
        """A run as it would be, had it been killed before it wrote what is `gone`."""
        folder = Path(shutil.copytree(self.root / of, self.root / name))
        for part in gone:
            shutil.rmtree(folder / part)
        return folder

    def together(self, jobs: Sequence[Job], patience: float = 480) -> subprocess.CompletedProcess[str]:
        """Runs of two processes under DeepSpeed's launcher, one after another."""
        listing = self.root / "jobs.jsonl"
        listing.write_text("".join(json.dumps({"root": str(self.root), **asdict(job)}) + "\n" for job in jobs))
        return launched("many.py", listing, patience)

    def outcome(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((self.root / name / "exit.json").read_text())
        return answer


def launched(script: str, argument: Path, patience: float, **more: str) -> subprocess.CompletedProcess[str]:
    """A script of tests/support in two processes under DeepSpeed's launcher."""
    command = [word for word in processes._command([], {"processes": PROCESSES}, {}) if word != "--module"]
    return subprocess.run(
        [*command, str(Path(__file__).parent / script), str(argument)], env=environment(**more),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=patience,
    )  # fmt: skip
