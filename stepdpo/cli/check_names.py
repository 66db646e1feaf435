"""`stepdpo check`: the data set, level, tasks and model that its words name, found as a training would find them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import open_dict

from stepdpo.cli import flags, overrides, shorthands
from stepdpo.cli.check import check
from stepdpo.cli.job_config import split
from stepdpo.cli.rehearsal import rehearse
from stepdpo.core.config import build, config_folders
from stepdpo.core.errors import UserError, nearest
from stepdpo.core.protocols import Level
from stepdpo.data.validation import DatasetSpec, share
from stepdpo.pairs.tree.files import holds_trees

NATIVE = "native"
"""The template where none is named."""


@dataclass(frozen=True)
class Layout:
    """How the rows lie, as `check` is told; empty for what the data set says, or the columns tell."""

    format: str = ""
    split: str = ""
    columns: tuple[str, ...] = ()
    """Each as `prompt=query`: our name of a column, and the file's."""

    def settings(self) -> dict[str, Any]:
        """Those that are given, by their keys in `dataset`."""
        pairs = [column.partition("=") for column in self.columns]
        for ours, equals, theirs in pairs:
            if not (ours and equals and theirs):
                raise UserError(f"--columns {ours}: written as OURS=THEIRS, for example --columns prompt=query")
        given = {"format": self.format, "split": self.split, "columns": {ours: theirs for ours, _, theirs in pairs}}
        return {key: value for key, value in given.items() if value}


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
    layout: Layout = Layout(),
    folders: Sequence[Path] = (),
) -> None:
    """Find every part by its name, in our folder of options and in `folders`, then check.

    Raises UserError for a name that means nothing.
    """
    for folder in folders:
        flags.check_folder(folder)
    if model is None and template != NATIVE:
        raise UserError(f"--template {template}: is what a model reads; name one by --model")
    if out_json is not None and (out_json.is_dir() or not _nearest_there(out_json).is_dir()):
        raise UserError(f"--json: {out_json} cannot be written")
    tasks = [one for named in tasks for one in named.split(",")]
    with config_folders(folders):
        level_part = _level(level)
        task_parts = [build(overrides.check("eval", [f"task={task}"], sweep=False).task) for task in tasks]
        model_parts = _model(model, template) if model is not None else {}
        dataset = find_dataset(data, layout)
        check(
            dataset, level=level_part, tasks=task_parts, max_bad=_share(max_bad), model_pairs=model_pairs,
            out_json=out_json, **model_parts,
        )  # fmt: skip


def _share(text: str) -> float:
    try:
        return share(text)
    except ValueError as error:
        raise UserError(f"--max-bad: {error}") from error


def _nearest_there(path: Path) -> Path:
    """The lowest folder above a file, or what lies in its place."""
    return next(place for place in path.absolute().parents if place.exists())


def find_dataset(data: str, layout: Layout = Layout()) -> DatasetSpec:
    """A data set by the name of its conf file, or by a path or hub id (its format is then told from the columns).

    A file of trees, such as a run's trees.jsonl, is read as dataset=trees does.
    """
    known = shorthands.groups(shorthands.known_folders())["dataset"]
    named = data in known
    if not named and not ("/" in data or "." in data or Path(data).exists()):
        raise UserError(f"{data}: neither a file nor a data set of conf/dataset; {nearest(data, known)}")
    kind = "trees" if not named and holds_trees(data) else "jsonl"
    words = [f"dataset={data}"] if named else [f"dataset={kind}", f"dataset.path='{data}'"]
    config = overrides.check("train", words, sweep=False).dataset
    with open_dict(config):
        config.update(layout.settings())
    part: DatasetSpec = build(config, where="dataset")
    return part


def _level(name: str) -> Level:
    level: Level = build(overrides.check("train", [f"level={name}"], sweep=False).level)
    return level


def _model(model: str, template: str) -> dict[str, Any]:
    known = shorthands.groups(shorthands.known_folders())
    words = shorthands.normalise("eval", [f"model={model}", f"template={template}"], known)
    config = overrides.check("eval", words, sweep=False)
    rehearse([("--", split(config)[1])])
    return {"model": build(config.model, where="model"), "template": build(config.template, where="template")}
