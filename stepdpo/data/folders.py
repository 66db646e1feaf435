"""Which files of a folder hold the rows: those of a run, of a saved data set, or of the hub's layout."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from stepdpo.core.errors import UserError, nearest
from stepdpo.runtime.run_folder import QUARANTINE

PREFERENCES = "preferences.jsonl"
_SPLITS, _STATE = "dataset_dict.json", "state.json"
"""What `save_to_disk` of the datasets library leaves beside several splits, and beside the files of one."""
_NO_ROWS = {QUARANTINE, _SPLITS, _STATE, "dataset_info.json", "dataset_infos.json"}
_OTHER_SPLIT = re.compile(r"(test|validation|valid|val|dev|eval)(?![a-z])", re.IGNORECASE)
_TRAIN = re.compile(r"train(?![a-z])", re.IGNORECASE)


def folder_files(place: Path, split: str, readable: Callable[[Path], bool]) -> list[Path]:
    """The files with rows, in order.

    A `split` chooses those whose names begin with it; without one, files of a split `train` are taken without those of
    other splits beside them. UserError where there are none.
    """
    if (place / PREFERENCES).is_file():
        return [place / PREFERENCES]  # the folder of a `pairs` run
    if (place / _SPLITS).is_file():
        place = place / _chosen_split(place, split)
        split = ""
    if (place / _STATE).is_file():
        return [place / name for name in _saved_names(place / _STATE)]
    # As the hub has them: below `data`, or one folder a split.
    for folder, wanted in ((place, split), (place / "data", split), (place / (split or "train"), "")):
        if found := _rows_in(folder, readable):
            return _of_split(folder, found, wanted)
    kinds = sorted({p.suffix for p in place.iterdir() if p.is_file() and p.suffix and not p.name.startswith(".")})
    there = f" (there is {', '.join(kinds)})" if kinds else ""
    raise UserError(f"{place}: no .jsonl, .json, .csv, .parquet or .arrow file in this folder{there}")


def _rows_in(folder: Path, readable: Callable[[Path], bool]) -> list[Path]:
    """Hidden files are left out: those of macOS (`._train.jsonl`) have a readable name and no rows."""
    names = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        p for p in names if p.is_file() and readable(p) and p.name not in _NO_ROWS and not p.name.startswith(".")
    )


def _of_split(folder: Path, found: list[Path], split: str) -> list[Path]:
    if not split:
        train = [p for p in found if _TRAIN.match(p.name)]
        return train if train and any(_OTHER_SPLIT.match(p.name) for p in found) else found
    chosen = [p for p in found if p.name.startswith(split)]
    if not chosen:
        names = ", ".join(p.name for p in found[:5])
        raise UserError(f"{folder}: no file name begins with the split {split!r} (there is {names})")
    return chosen


def _chosen_split(place: Path, split: str) -> str:
    splits = _listed(place / _SPLITS, "splits")
    if not split and len(splits) == 1:
        return splits[0]
    if (split or "train") not in splits:
        raise UserError(f"{place}: there is no split {split or 'train'!r}; {nearest(split or 'train', splits)}")
    return split or "train"


def _saved_names(state: Path) -> list[str]:
    names = _listed(state, "_data_files", "filename")
    if missing := [name for name in names if not (state.parent / name).is_file()]:
        raise UserError(f"{state}: names {missing[0]}, which is not there")
    return names


def _listed(file: Path, key: str, inner: str = "") -> list[str]:
    """Plain names of files or folders beside `file`."""
    try:
        items = json.loads(file.read_text(encoding="utf-8"))[key]
        names = [str(item[inner] if inner else item) for item in items]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: cannot be read as that of a saved data set ({error})") from error
    if not names or any(Path(name).name != name for name in names):
        raise UserError(f"{file}: {key} must name what lies beside it")
    return names
