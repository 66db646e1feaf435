"""Trees that others made, given as rows: UltraInteract (Yuan et al. 2024, arXiv 2404.02078), and rows with parents.

A tree's rows may lie anywhere in their file, so the file is read twice: once for which rows belong together, once to
build every tree as soon as its last row has come. So memory holds unfinished trees, and not the file.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from stepdpo.data.fields import RowError, RowFields
from stepdpo.data.rows import BadRow, Row
from stepdpo.pairs.tree.tree import Node, Tree

Rows = Iterable[Row | BadRow]
MakeTrees = Callable[[str, Sequence[Row]], Iterator[Tree | BadRow]]
PLACE = re.compile(r"_\d+_\d+$")
"""Depth and turn at the end of an id of UltraInteract."""


def ultrainteract(read: Callable[[], Rows]) -> Iterator[Tree | BadRow]:
    """Trees of whole actions: right and wrong ones after the same conversation, which grows from a wrong one."""
    keys = [_conversation(row) if isinstance(row, Row) else "" for row in read()]
    return _grouped(read(), keys, _actions)


def with_parents(read: Callable[[], Rows]) -> Iterator[Tree | BadRow]:
    """Trees of rows {id, parent_id, text, ...}: a row without a parent, or whose parent is no row, is at the root."""
    return _grouped(read(), _roots(read()), _steps)


def _grouped(rows: Rows, keys: Sequence[str | None], make_trees: MakeTrees) -> Iterator[Tree | BadRow]:
    """The trees of the rows with equal keys, each once its last row has come."""
    last = {key: number for number, key in enumerate(keys)}
    waiting: defaultdict[str, list[Row]] = defaultdict(list)
    for number, (row, key) in enumerate(zip(rows, keys, strict=True)):
        if isinstance(row, BadRow):
            yield row
        elif key is None:
            yield row.bad("its parents lead back to itself")
        else:
            waiting[key].append(row)
        if key is not None and last[key] == number and key in waiting:
            yield from make_trees(key, waiting.pop(key))


@dataclass
class _ActionTrie:
    """A trie of actions: conversations that begin alike share nodes."""

    nodes: list[Node] = field(default_factory=lambda: [Node(-1)])
    children: dict[tuple[int, str, str], int] = field(default_factory=dict)

    def child(self, parent: int, feedback: str, text: str) -> int:
        if (parent, feedback, text) not in self.children:
            self.children[parent, feedback, text] = len(self.nodes)
            self.nodes.append(Node(parent, text, feedback=feedback))
        return self.children[parent, feedback, text]


def _conversation(row: Row) -> str:
    """What the rows of one instruction share: the beginning of their ids, and the instruction."""
    name = PLACE.sub("", str(row.cells.get("parent_id") or row.cells.get("id") or ""))
    try:
        return f"{name}\n{RowFields(row.cells).turns('trajectory')[0].content}"
    except (RowError, IndexError):
        return name


def _actions(key: str, rows: Sequence[Row]) -> Iterator[Tree | BadRow]:
    trie = _ActionTrie()
    labels: defaultdict[int, set[bool]] = defaultdict(set)  # every row has its say before a node is marked
    used: list[Row] = []
    for row in rows:
        try:
            _action(RowFields(row.cells), trie, labels)
            used.append(row)
        except RowError as error:
            yield row.bad(str(error))
    if not used:
        return
    for node, correct in labels.items():
        if len(correct) == 1:  # an action that is right in one row and wrong in another is neither
            trie.nodes[node] = replace(trie.nodes[node], correct=correct.pop())
    name, _, question = key.partition("\n")
    pair = RowFields(used[0].cells).some(("task", "dataset"))
    meta = {"whole": True, "pair": pair}
    yield Tree(name or used[0].place, question, "", tuple(trie.nodes), meta=meta, place=used[0].place)


def _action(cells: RowFields, trie: _ActionTrie, labels: defaultdict[int, set[bool]]) -> None:
    """Add one row's conversation and its two actions."""
    turns = cells.turns("trajectory")
    roles = [turn.role for turn in turns]
    if roles != ["user", *["assistant", "user"] * (len(turns) // 2)] or not turns[0].content.strip():
        raise RowError(
            "column 'trajectory': user and assistant must take turns, from an instruction to the user's last"
        )
    chosen, rejected = cells.text("chosen"), cells.text("rejected")
    at, feedback = 0, ""
    for action, answer in zip(turns[1::2], turns[2::2], strict=True):
        at, feedback = trie.child(at, feedback, action.content), answer.content
    labels[trie.child(at, feedback, chosen)].add(True)
    labels[trie.child(at, feedback, rejected)].add(False)


def _roots(rows: Rows) -> list[str | None]:
    """The root's id for every row; None where its parents lead back to itself, "" for what is no row."""
    names = [(_name(row), _parent(row)) if isinstance(row, Row) else ("", "") for row in rows]
    parents = dict(reversed(names))  # of two rows with one id the first counts, as in `_steps`
    found: dict[str, str | None] = {}
    for name, _ in names:
        at, trail = name, dict[str, None]()
        while at not in found and at not in trail and parents.get(at):
            trail[at] = None
            at = parents[at]
        found.update(dict.fromkeys([*trail, name], None if at in trail else found.get(at, at)))
    return [found[name] for name, _ in names]


def _name(row: Row, column: str = "id") -> str:
    value = row.cells.get(column)
    return "" if value is None else str(value)


def _parent(row: Row) -> str:
    """The id of the row above, empty for a root. First steps may name their question in place of a parent."""
    question = _name(row, "question")
    first = question.strip() and _name(row, "text").strip()
    return _name(row, "parent_id") or (f"? {question}" if first else "")


def _steps(key: str, rows: Sequence[Row]) -> Iterator[Tree | BadRow]:
    """One tree from the root down; what hangs below a row that cannot be used cannot be used either."""
    by_name: dict[str, Row] = {}
    below: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        name = _name(row)
        if not name or name in by_name:
            yield row.bad(f"column 'id': {name!r} is the id of {by_name[name].place}" if name else "no column 'id'")
            continue
        by_name[name] = row
        below[_parent(row)].append(row)
    nodes: list[Node] = [Node(-1)]
    waiting = deque((row, 0) for row in below[key])
    while waiting:
        row, parent = waiting.popleft()
        place = len(nodes)
        try:
            nodes.append(_node(RowFields(row.cells), parent, nodes))
        except RowError as error:
            place = -1
            yield row.bad(str(error))
        waiting.extend((child, place) for child in below[_name(row)])
    question, answer = (_first_cell(by_name.values(), column) for column in ("question", "answer"))
    question = question or (_name(by_name[key], "text") if key in by_name else "")
    if question.strip() and len(nodes) > 1:
        name = key if key in by_name else _first(key, rows)
        yield Tree(name, question, answer, tuple(nodes), place=rows[0].place)
    elif len(nodes) > 1:
        yield rows[0].bad("no row of its tree has a 'question', nor is there a row without a parent to be one")


def _first(key: str, rows: Sequence[Row]) -> str:
    """The name of a tree without a row for its root."""
    return _name(rows[0]) if key.startswith("? ") else key


def _first_cell(rows: Iterable[Row], column: str) -> str:
    """What the first row that has the column says there."""
    return next((", ".join(answers) for row in rows if (answers := RowFields(row.cells).answers(column))), "")


def _node(cells: RowFields, parent: int, nodes: Sequence[Node]) -> Node:
    """A row as a node; a line break is put before its text where there is no white space between the two texts."""
    if parent < 0:
        raise RowError("the row it goes on from cannot be used")
    text, feedback = cells.text("text"), cells.text("feedback", "")
    before = nodes[parent].text
    if before and not feedback and not before[-1].isspace() and not text[0].isspace():
        text = f"\n{text}"
    visits = cells.number("visits", 0.0, low=0, high=1e15) or 0.0
    if visits != int(visits):
        raise RowError(f"column 'visits': {visits} is not a whole number")
    return Node(
        parent,
        text,
        visits=int(visits),
        q=cells.number("value", None, low=-1, high=1),
        correct=cells.flag("correct") if cells.has("correct") else None,
        feedback=feedback,
    )
