"""One job: a claimed run folder with its configuration, and the processes that work in it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stepdpo import runs, workers
from stepdpo.config import UserError

CONFIG = "config.yaml"
FREE_ON_RESUME = {"log_every", "eval_every", "save_every", "keep", "track"}
"""Settings that a resumed run may change: how often it looks and logs."""


def run_in(
    folder: Path,
    verb: str,
    config: DictConfig,
    choices: Mapping[str, str],
    *,
    force: bool = False,
    resume: bool = False,
) -> dict[str, Any]:
    """Claim a run folder, write its config.yaml and manifest.json, and work in it; returns the worker's answer.

    A folder in which nothing was begun (the worker found the input wanting) is left free for the next attempt.
    Secrets stay references: the configuration is written unresolved.
    """
    with runs.claim(folder, force=force, resume=resume):
        if resume and (folder / CONFIG).is_file():
            _refuse_changes(folder / CONFIG, config)
        runs.write_text(folder / CONFIG, OmegaConf.to_yaml(config, resolve=False))
        seed = int(config.get("seed", 0))
        runs.write_json(folder / runs.MANIFEST, runs.manifest(sys.argv, seed, choices))
        engine: Any = OmegaConf.to_container(config.get("engine") or OmegaConf.create({}), resolve=True)
        answer = workers.start(verb, folder, engine, resume)
        if answer["code"] == workers.MEND and not resume:
            for name in (CONFIG, runs.MANIFEST, "metrics.jsonl"):
                (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
    return answer


def _refuse_changes(path: Path, config: DictConfig) -> None:
    """A resumed run must be the same run."""
    before: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    now: Any = OmegaConf.to_container(config, resolve=False)
    old, new = ({k: v for k, v in _flat(c).items() if k.partition(".")[0] not in FREE_ON_RESUME} for c in (before, now))
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if changed:
        lines = [f"  {key}: {old.get(key)!r} then, {new.get(key)!r} now" for key in changed]
        raise UserError("\n".join([f"{path.parent} was started with another configuration:", *lines]))


def _flat(node: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
