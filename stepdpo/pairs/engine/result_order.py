"""Results in the order of their problems: the same bytes, whichever problem was finished first or how often it stopped.

While a run lasts, results are appended as they come (result_log.py). At its end the log and the files whose lengths it
holds are written anew, each beside the old one, and put in its place; no more than one problem's rows are in memory.

The new log is written first and put in its place first. That is the moment from which the new order holds: as long as
it lies beside the old log, what was written is thrown away, and from then on the other files are put in their places.
So whatever stops this, log and files have one order, and the run goes on from it.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from stepdpo.runtime.atomic_io import encode, sync_folder

UNKNOWN = -1
"""The place of a problem in a log of an earlier version: before all others, in the order of the log."""


def put_in_order(log: Path, files: Mapping[str, Path]) -> None:
    """Write the log and the files anew, problems in their order; tries of one problem keep theirs.

    `files` by the names under which the log's lines hold their lengths.
    """
    kept = {name: path for name, path in files.items() if path.stat().st_size}
    lines, bounds, order = _index(log, list(kept))
    try:
        _write(_beside(log), _with_ends(log, lines, bounds, order))
        for name, path in kept.items():
            _write(_beside(path), _slices(path, bounds[name], order))
        sync_folder(log.parent)
        _beside(log).replace(log)
    finally:
        settle(log, files.values())


def settle(log: Path, files: Iterable[Path]) -> None:
    """Finish an order that holds already, or throw away one that does not; nothing where none was interrupted."""
    holds = not _beside(log).exists()
    for path in files:
        beside = _beside(path)
        if beside.exists() and holds:
            sync_folder(log.parent)  # the log's name before any other: a power cut must not turn them round
            beside.replace(path)
        beside.unlink(missing_ok=True)
    _beside(log).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.ordered")


def _index(log: Path, names: Sequence[str]) -> tuple[array[int], dict[str, array[int]], list[int]]:
    """(where lines begin and end, where each problem's rows do in each file, the numbers of the lines in new order)."""
    lines, places = array("q", [0]), array("q")
    bounds = {name: array("q", [0]) for name in names}
    with log.open("rb") as texts:
        for text in texts:
            line = json.loads(text)
            lines.append(lines[-1] + len(text))
            places.append(line.get("place", UNKNOWN))
            for name, ends in bounds.items():
                ends.append(line["ends"].get(name, ends[-1]))
    return lines, bounds, sorted(range(len(places)), key=places.__getitem__)


def _slices(path: Path, bounds: Sequence[int], order: Iterable[int]) -> Iterator[bytes]:
    """The parts of a file in new order."""
    with path.open("rb") as file:
        for number in order:
            file.seek(bounds[number])
            yield file.read(bounds[number + 1] - bounds[number])


def _with_ends(
    log: Path, lines: Sequence[int], bounds: Mapping[str, Sequence[int]], order: Sequence[int]
) -> Iterator[bytes]:
    """The log's lines in new order, with the lengths that the other files will have up to there."""
    ends = dict.fromkeys(bounds, 0)
    for number, text in zip(order, _slices(log, lines, order), strict=True):
        line = json.loads(text)
        for name, places in bounds.items():
            ends[name] += places[number + 1] - places[number]
        line["ends"] |= ends
        yield encode(line).encode() + b"\n"


def _write(path: Path, parts: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
