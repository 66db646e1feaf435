"""`stepdpo check`: the data set, level, tasks and model that its words name, found as a training would find them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from stepdpo.cli import overrides, shorthands
from stepdpo.cli.check import check
from stepdpo.core.config import build
from stepdpo.core.errors import UserError, nearest
from stepdpo.core.package_data import conf
from stepdpo.core.protocols import Level
from stepdpo.data.dataset import Dataset
from stepdpo.data.validation import DatasetSpec


def check_named(
    data: str,
    *,
    level: str,
    tasks: Sequence[str],
    max_bad: str,
    model: str | None,
    template: str,
    model_pairs: int,
    out_json: Path | None,
) -> None:
    """Find every part by its name, then check. Raises UserError for a name that means nothing."""
    level_part = _level(level)
    task_parts = [build(overrides.composed("eval", [f"task={task}"]).task) for task in tasks]
    model_parts = _model(model, template) if model is not None else {}
    try:
        check(
            find_dataset(data), level=level_part, tasks=task_parts, max_bad=max_bad, model_pairs=model_pairs,
            out_json=out_json, **model_parts,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"max_bad: {error}") from error


def find_dataset(data: str) -> DatasetSpec:
    """A data set by the name of its conf file, or by a path or hub id (its format is then told from the columns)."""
    folder = conf() / "dataset"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if data in names:
        part: DatasetSpec = build(OmegaConf.load(folder / f"{data}.yaml"), where="dataset")
        return part
    if "/" in data or "." in data or Path(data).exists():
        return Dataset(path=data)
    raise UserError(f"{data}: neither a file nor a data set of conf/dataset; {nearest(data, names)}")


def _level(name: str) -> Level:
    known = shorthands.groups([conf()])["level"]
    if name not in known:
        raise UserError(f"level={name}: {nearest(name, known)}")
    level: Level = build(overrides.composed("train", [f"level={name}"]).level)
    return level


def _model(model: str, template: str) -> dict[str, Any]:
    words = shorthands.normalise("eval", [f"model={model}", f"template={template}"], shorthands.groups([conf()]))
    config = overrides.check("eval", words, [conf()], sweep=False)
    return {"model": build(config.model, where="model"), "template": build(config.template, where="template")}
