"""The configuration of a resumed run: the one it was started with, but for settings that never change its result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stepdpo.cli.job_config import LAUNCH_KEYS
from stepdpo.cli.shorthands import key_of
from stepdpo.core.config_file import load_config, with_later_settings
from stepdpo.core.errors import UserError

FREE_ON_RESUME = {"log_every", "eval_every", "save_every", "keep", "track", "crew", "guard"}
"""Settings that a resumed run may change: how often it evaluates and logs, what guards it, who works. So may where a
server is."""


def resumed_config(path: Path, now: DictConfig, given: Sequence[str]) -> DictConfig:
    """The configuration in `path`, with what may change taken from `now`, as far as the words `given` name it.

    Raises UserError for words that ask for another result than the run was started for.
    """
    before = load_config(path)
    # Only keys that were named: what is not said again is meant as it was, whatever the defaults are by now.
    keys = {key_of(word) for word in given}
    if "experiment" in keys:
        keys = {str(key) for key in now}  # a word that may set any key
    changed = []
    for key in sorted(keys - set(LAUNCH_KEYS)):
        old, new = (_plain(config, key) for config in (before, now))
        if with_later_settings(old, new) == new:
            continue
        if key.partition(".")[0] in FREE_ON_RESUME or _settled(key, old) == _settled(key, new):
            OmegaConf.update(before, key, OmegaConf.select(now, key), merge=False)
        else:
            changed.append(f"  {key}: {_shown(old)} then, {_shown(new)} now")
    if changed:
        raise UserError("\n".join([f"{path.parent} was started with another configuration:", *changed]))
    return before


def _plain(config: DictConfig, key: str) -> Any:
    """A setting as plain values."""
    container: Any = OmegaConf.to_container(OmegaConf.create({"value": OmegaConf.select(config, key)}))
    return container["value"]


def _settled(key: str, value: Any) -> Any:
    """A setting without what may change about a server: where it is, how it is treated. Its model may not."""
    for name in reversed(key.split(".")):
        value = {name: value}

    def strip(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        return {k: v.get("model") if k == "server" and isinstance(v, dict) else strip(v) for k, v in node.items()}

    return strip(value)


def _shown(value: Any) -> str:
    """A whole part is told by its target."""
    return str(value.get("_target_", value) if isinstance(value, dict) else value)
