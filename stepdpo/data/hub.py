"""Rows of a data set on the Hugging Face hub: the only place that imports `datasets`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.data.rows import BadRow, Row, checked


def read(path: str, *, subset: str, split: str, revision: str) -> Iterator[Row | BadRow]:
    """The rows of one split, numbered from 1. No code of the data set is ever run."""
    for number, cells in enumerate(_load(path, subset, split, revision), start=1):
        yield checked(path, number, cells)


def _load(path: str, subset: str, split: str, revision: str) -> Any:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise UserError(f"{path}: reading from the hub needs the datasets package: pip install datasets") from error
    try:
        return datasets.load_dataset(path, subset or None, split=split, revision=revision or None)
    except Exception as error:  # the library raises many kinds: all of them mean that there are no rows
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: there is no such local file, and the hub gave no split {split!r}: {first}\n"
            f"  without a network, download the files once and set the path to the file or its folder"
        ) from error
