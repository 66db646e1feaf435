"""`stepdpo export-data`: data as training reads them, written for other programs."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

from stepdpo.cli.check_names import find_dataset
from stepdpo.core.errors import UserError, nearest
from stepdpo.data.preference_file import write_lines
from stepdpo.data.preference_rows import LAYOUTS, llamafactory_entry, lost, preference_rows
from stepdpo.data.stepwise import stepwise_rows
from stepdpo.data.validation import DatasetSpec, enforce
from stepdpo.pairs.tree.responses import Shared

STEPWISE = "stepwise"
FORMATS = (STEPWISE, *LAYOUTS)
LEVELS = ("step", "instance")


def export_data(source: str, format: str, output: Path, threshold: float, level: str = "instance") -> Counter[str]:
    """Write the data of `source` to a file of JSON Lines, whole or not at all; print and return the counts.

    `threshold` is of labelled steps (`stepwise`), `level` of preferences (all others).

    UserError where there is nothing to write, or bad rows are more than the data allow.
    """
    if format not in FORMATS:
        raise UserError(f"--format: {nearest(format, FORMATS)} (got {format!r})")
    if level not in LEVELS:
        raise UserError(f"--level: {nearest(level, LEVELS)} (got {level!r})")
    if not 0 <= threshold <= 1:
        raise UserError(f"--threshold: expected a number between 0 and 1, got {threshold:g}")
    if output.exists() and Path(source).exists() and output.resolve() == Path(source).resolve():
        raise UserError(f"--output: {output} is the source itself; choose another name")
    loaded = _everything(find_dataset(source)).load()
    enforce(loaded)
    counts: Counter[str] = Counter()
    if format == STEPWISE:
        rows = list(stepwise_rows(loaded.preferences, threshold, counts))
    else:
        rows = list(preference_rows(loaded.preferences, format, level, counts))
    missing = "" if format == STEPWISE else lost(counts)
    if not rows:
        why = "".join(f"\n  {count:,} {name}" for name, count in counts.items() if count)
        raise UserError(f"{source}: no {'response with labelled steps' if format == STEPWISE else 'pair'}{why}")
    try:
        write_lines((json.dumps(row, ensure_ascii=False) for row in rows), output)
    except OSError as error:
        raise UserError(f"--output: {output} cannot be written ({error.strerror})") from None
    if format == STEPWISE:
        steps, right = sum(len(row["labels"]) for row in rows), sum(sum(row["labels"]) for row in rows)
        print(f"{len(rows):,} responses, {steps:,} steps ({right:,} right) in {output}")
    else:
        print(f"{len(rows):,} rows in {output}")
    for name, count in (*counts.items(), ("bad rows", len(loaded.bad))):
        if count:
            print(f"  {count:>9,}  {name}")
    if missing:
        print(missing)
    if entry := llamafactory_entry(format, output.name, paired="rejected" in rows[0]):
        print(f"dataset_info.json: {json.dumps({output.stem: entry})}")
    return counts


def _everything(dataset: Any) -> DatasetSpec:
    """The data set with nothing held out; of trees, with every label in every response, as each row is read alone."""
    changes = {"heldout": 0, "shared": Shared.every}
    there = {field.name for field in dataclasses.fields(dataset)}  # every part of the configuration is one
    whole: DatasetSpec = dataclasses.replace(dataset, **{k: v for k, v in changes.items() if k in there})
    return whole
