"""Trees from files: what a run of `stepdpo pairs` searched, or rows that others published."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.data.readers import local_files, locate, read_rows
from stepdpo.data.rows import BadRow, Row
from stepdpo.pairs.engine.result_log import TREES
from stepdpo.pairs.tree.published import ultrainteract, with_parents
from stepdpo.pairs.tree.tree import Node, Tree
from stepdpo.runtime.run_folder import FINISHED

PEEK_ROWS = 100
"""Rows that the form is recognised by: the first ones may be broken."""
Reading = Callable[[], Iterable[Row | BadRow]]


def read_trees(path: str) -> Iterator[Tree | BadRow]:
    """Every tree of a file or a folder, one after another; rows that cannot be used come as BadRows.

    UserError when there is nothing to read, or the columns are those of no known form.
    """
    place = place_of(path)

    def rows() -> Iterator[Row | BadRow]:
        return read_rows(place)

    return _form(place, rows)(rows)


def holds_trees(path: str) -> bool:
    """Whether it is a file whose first readable row is a tree as a run writes it."""
    place = Path(path).expanduser()
    if not place.is_file():
        return False
    first = next((row for row in islice(read_rows(str(place)), PEEK_ROWS) if isinstance(row, Row)), None)
    return first is not None and set(first.cells) >= set(OURS.split())


def place_of(path: str) -> str:
    """The file meant by `path`: the trees of a run, where it is a run's folder."""
    folder = locate(path)
    if folder is None or not folder.is_dir():
        return path
    if (folder / TREES).is_file():
        return str(folder / TREES)
    partial = folder / Path(TREES).with_suffix(".partial.jsonl")
    if partial.is_file():
        raise UserError(f"{folder}: this run has not finished; give {partial} to cut what there is so far")
    if (folder / FINISHED).is_file():
        raise UserError(f"{folder}: this run left no {TREES}: its way of making pairs searches no trees")
    local_files(path)
    return path


def _form(place: str, rows: Reading) -> Callable[[Reading], Iterator[Tree | BadRow]]:
    """How to read the rows, by their columns."""
    columns: set[str] = set()
    for row in islice(rows(), PEEK_ROWS):
        if isinstance(row, Row):
            columns |= set(row.cells)
            for needed, read in FORMS.items():
                if set(needed.split()) <= set(row.cells):
                    return read
    if not columns:
        raise UserError(f"{place}: none of the first {PEEK_ROWS} rows can be read; `stepdpo check` shows why")
    forms = "".join(f"\n  {needed.replace(' ', ', ')}" for needed in FORMS)
    raise UserError(f"{place}: no trees in these columns: {', '.join(sorted(columns)[:20])}; known forms:{forms}")


def _rows_of_trees(rows: Reading) -> Iterator[Tree | BadRow]:
    for row in rows():
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            _check(row.cells)
            yield replace(Tree.from_row(row.cells), place=row.place)
        except (ValueError, KeyError, TypeError) as error:
            lacking = f"no {error} in it" if isinstance(error, KeyError) else str(error)
            yield row.bad(lacking)


def _check(cells: Mapping[str, Any]) -> None:
    """ValueError or TypeError where a tree would be of the wrong types."""
    for name in ("problem", "question", "answer"):
        if not isinstance(cells[name], str):
            raise TypeError(f"{name}: expected a string")
    if not isinstance(cells["nodes"], list) or not cells["nodes"]:
        raise TypeError("nodes: expected a list of at least one node")
    for number, node in enumerate(cells["nodes"]):
        if not isinstance(node, dict):
            raise TypeError(f"node {number}: expected an object")
        for name, value in node.items():
            kinds = KINDS.get(name)
            if kinds is None:
                raise ValueError(f"node {number} has an unknown {name!r}")
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise TypeError(f"node {number}: {name} is {value!r}")
        for name, (low, high) in RANGES.items():
            if name in node and not low <= node[name] <= high:
                raise ValueError(f"node {number}: {name} is {str(node[name])[:20]}, not between {low:g} and {high:g}")
        if node.get("successes", 0) > node.get("visits", 0):
            raise ValueError(f"node {number}: {node['successes']} successes of {node.get('visits', 0)} visits")


KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys((f.name for f in fields(Node)), (int,)),
    **dict.fromkeys(("text", "feedback"), (str,)),
    **dict.fromkeys(("q", "prior"), (int, float)),
    "correct": (bool,),
}
"""What each field of a node may be, where it is given."""
RANGES = {"q": (-1, 1), "prior": (0, 10**9), "visits": (0, 10**9), "successes": (0, 10**9)}
"""Numbers outside would be taken for values, or be none that a float can hold."""
OURS = "problem nodes"
FORMS: Mapping[str, Callable[[Reading], Iterator[Tree | BadRow]]] = {
    OURS: _rows_of_trees,
    "trajectory chosen rejected": ultrainteract,
    "id text": with_parents,
}
"""The columns of each form, and its reader."""
