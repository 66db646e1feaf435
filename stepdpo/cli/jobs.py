"""One job: a claimed run folder with its configuration, and the processes that work in it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stepdpo.cli import processes as workers
from stepdpo.core.config import build
from stepdpo.core.errors import UserError
from stepdpo.runtime import run_folder as runs

CONFIG = "config.yaml"
LAUNCH_KEYS = ("run", "runs", "force", "resume", "then", "then_with", "tasks", "experiment", "recipe", "rounds")
"""Settings of the launch itself; everything else is the worker's."""
ENDS = ("model/config.json", "summary.json")
"""What a finished run holds."""
Work = Callable[[DictConfig], dict[str, Any]]
"""(configuration of a run) -> the answer: code, message, outcome; `begun` where something is to be kept in any case."""
FREE_ON_RESUME = {"log_every", "eval_every", "save_every", "keep", "track", "crew"}
"""Settings that a resumed run may change: how often it looks and logs, and who works. So may where a server is."""


def run_in(
    folder: Path,
    verb: str,
    config: DictConfig,
    choices: Mapping[str, str],
    *,
    force: bool = False,
    resume: bool = False,
    given: Sequence[str] = (),
    note: Mapping[str, Any] | None = None,
    work: Work | None = None,
) -> dict[str, Any]:
    """Claim a run folder, write its config.yaml and manifest.json, and work in it; returns the worker's answer.

    A resumed run keeps the configuration it was started with; `given` words that say otherwise are refused, and one
    that has finished is left as it is. A folder in which nothing was begun (the worker found the input wanting) is
    left free for the next attempt. Secrets stay references: the configuration is written unresolved. `note` goes
    into the manifest. `work` is done in place of the verb's own; it sees for itself what has finished.
    """
    if force and _holds_something(folder):
        build(config)  # a mistake in the settings must not cost the run that they would replace
    with runs.claim(folder, force=force, resume=resume):
        if resume and (folder / CONFIG).is_file():
            config = _resumed(folder / CONFIG, config, given)
        else:
            seed = int(config.get("seed", 0))
            runs.write_json(folder / runs.MANIFEST, {**runs.manifest(sys.argv, seed, choices), **(note or {})})
        if resume and not work and finished(folder):
            print(f"{folder} has finished: nothing to resume", flush=True)
            return {"code": workers.OK, "message": "", "outcome": {}, "finished": True}
        runs.write_text(folder / CONFIG, OmegaConf.to_yaml(config, resolve=False))
        try:
            answer = work(config) if work else _start(verb, folder, config, resume)
        except UserError as error:
            answer = {"code": workers.USER_ERROR, "message": str(error), "outcome": {}}
        unbegun = answer["code"] == workers.USER_ERROR and not resume and not answer.get("begun")
        if unbegun:
            for name in (CONFIG, runs.MANIFEST, "metrics.jsonl"):
                (folder / name).unlink(missing_ok=True)
    if unbegun and not _holds_something(folder):
        shutil.rmtree(folder)
    return answer


def _start(verb: str, folder: Path, config: DictConfig, resume: bool) -> dict[str, Any]:
    engine: Any = OmegaConf.to_container(config.get("engine") or OmegaConf.create({}), resolve=True)
    return workers.start(verb, folder, engine, resume)


def finished(folder: Path) -> bool:
    """Whether a run has nothing left to do."""
    return any((folder / end).is_file() for end in ENDS)


def _holds_something(folder: Path) -> bool:
    return folder.is_dir() and any(path.name != runs.LOCK for path in folder.iterdir())


def _resumed(path: Path, now: DictConfig, given: Sequence[str]) -> DictConfig:
    """The configuration a run was started with, with what may change taken from `now`."""
    before = OmegaConf.load(path)
    assert isinstance(before, DictConfig)
    keys = {word.partition("=")[0].lstrip("+~") for word in given}
    if "experiment" in keys:
        keys = {str(key) for key in now}
    changed = []
    for key in sorted(keys - set(LAUNCH_KEYS)):
        pair: Any = [OmegaConf.to_container(OmegaConf.create({"v": OmegaConf.select(c, key)})) for c in (before, now)]
        old, new = pair
        if old == new:
            continue
        if key.partition(".")[0] in FREE_ON_RESUME or _settled(key, old["v"]) == _settled(key, new["v"]):
            OmegaConf.update(before, key, OmegaConf.select(now, key), merge=False)
        else:
            changed.append(f"  {key}: {_value(old)} then, {_value(new)} now")
    if changed:
        raise UserError("\n".join([f"{path.parent} was started with another configuration:", *changed]))
    return before


def _settled(key: str, value: Any) -> Any:
    """A setting without what may change about a server: where it is, how it is treated. Its model may not."""
    for name in reversed(key.split(".")):
        value = {name: value}

    def strip(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        return {k: v.get("model") if k == "server" and isinstance(v, dict) else strip(v) for k, v in node.items()}

    return strip(value)


def _value(container: Any) -> str:
    value = container["v"]
    return str(value.get("_target_", value) if isinstance(value, dict) else value)
