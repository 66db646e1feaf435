"""A configuration as it was written, perhaps by an earlier version: read with the targets and the settings of today."""

from __future__ import annotations

import dataclasses
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stepdpo.core.config import TARGET, part_class
from stepdpo.core.errors import UserError
from stepdpo.core.moved import MOVED


def load_config(path: Path) -> DictConfig:
    """A configuration file with the targets of today, also where it was written before they moved.

    Unresolved: secrets stay references to the environment. Raises OSError, YAMLError or OmegaConfBaseException when it
    cannot be read.
    """
    config = OmegaConf.load(path)
    if not isinstance(config, DictConfig):
        raise UserError(f"{path}: not a configuration, which maps names to values")
    return current_config(config)


def current_config(config: DictConfig) -> DictConfig:
    """A copy with the targets of today; interpolations stay as they are."""
    current: DictConfig = OmegaConf.create(with_current_targets(OmegaConf.to_container(config, resolve=False)))
    return current


def with_current_targets(node: Any) -> Any:
    """Plain values with every `_target_` under the name it has today."""
    if isinstance(node, list):
        return [with_current_targets(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: MOVED.get(str(value), value) if key == TARGET else with_current_targets(value)
        for key, value in node.items()
    }


def with_later_settings(before: Any, now: Any) -> Any:
    """Plain values of a part as they were, with settings that it did not have yet where `now` has their defaults."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [with_later_settings(old, new) for old, new in zip(before, now, strict=True)]
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return before
    filled = {key: with_later_settings(value, now.get(key)) for key, value in before.items()}
    later = now.keys() - before.keys()
    if later and TARGET in now and before.get(TARGET) == now[TARGET]:
        for f in dataclasses.fields(part_class(now[TARGET], "config")):
            default = _plain_default(f)
            if f.name in later and now[f.name] == default:
                filled[f.name] = default
    return filled


def _plain_default(f: dataclasses.Field[Any]) -> Any:
    """The default of a setting as a configuration writes it; of a part, with its target."""
    if f.default_factory is not dataclasses.MISSING and dataclasses.is_dataclass(part := f.default_factory()):
        kind = type(part)
        inner = {one.name: _written(getattr(part, one.name)) for one in dataclasses.fields(part)}
        return {TARGET: f"{kind.__module__}.{kind.__qualname__}", **inner}
    return _written(f.default)


def _written(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
