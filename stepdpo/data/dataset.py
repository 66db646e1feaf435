"""A data set as a config part: where its rows are, how they are laid out, what is held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain, islice

from stepdpo.core.errors import UserError, nearest
from stepdpo.core.types import Preference
from stepdpo.data.columns import outermost
from stepdpo.data.fields import RowError
from stepdpo.data.formats import LAYOUTS, SIDES, Format, Layout, detect, make, misspelt, unreadable
from stepdpo.data.readers import fingerprint_of, local_files, read_rows
from stepdpo.data.rows import BadRow, Row
from stepdpo.data.validation import Loaded, check_settings, gather, share

PEEK_ROWS = 100
"""Rows that the format is told from: a few bad ones at the front must not decide it."""
UNTOLD = f"the format cannot be told, as none of the first {PEEK_ROWS} rows can be read"


@dataclass(frozen=True)
class Dataset:
    """Preferences from a file, a folder or the hub."""

    path: str
    """A .jsonl, .json, .csv, .parquet or .arrow file, a folder of them, `pkg://...`, or a hub id `owner/name`."""
    format: Format = Format.AUTO
    """The layout of the rows; auto tells it from the columns."""
    split: str = ""
    """The split of a hub data set (default train); in a folder, what the file names begin with."""
    subset: str = ""
    """The configuration of a hub data set."""
    revision: str = ""
    """A branch, tag or commit of a hub data set."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The file's name of a column for the format's name of it: {prompt: instruction}."""
    limit: int | None = None
    """Stop after so many preferences."""
    max_bad: float | str = "1%"
    """The share of bad rows beyond which `enforce` refuses the data: 0.01 or "1%"."""
    heldout: float | str = 0
    """Preferences kept from training: a number, or a share (0.05, "5%")."""
    seed: int = 0
    """Chooses the held-out questions."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_settings(self.max_bad, self.heldout, self.limit)
        known = frozenset().union(*(layout.uses for layout in LAYOUTS.values()))
        for column in self.columns:
            if column not in known:
                raise ValueError(f"columns: no format has a column {column!r}; {nearest(column, known)}")

    def load(self) -> Loaded:
        """Read and validate everything; what cannot be used is in `bad`."""
        stream = read_rows(self.path, split=self.split, subset=self.subset, revision=self.revision)
        head = list(islice(stream, PEEK_ROWS))
        if not head:
            raise UserError(f"{self.path}: there are no rows in it")
        format_ = self._format(head)
        good: list[tuple[Preference, str]] = []
        bad: list[BadRow] = []
        odd: Counter[str] = Counter()
        present: Counter[str] = Counter()
        layout = LAYOUTS[format_] if format_ else None
        self._check_columns(layout)
        self._check_sides(head)
        for item in chain(head, stream):
            if isinstance(item, BadRow) or layout is None:
                bad.append(item if isinstance(item, BadRow) else item.bad(UNTOLD))
                continue
            present.update(list(item.cells))
            try:
                good += [(preference, item.place) for preference in make(layout, item.cells, self.columns, odd)]
            except RowError as error:
                bad.append(item.bad(str(error)))
            if self.limit is not None and len(good) >= self.limit:
                good = good[: self.limit]
                break
        if layout is not None:
            odd.update(dict(_unused(layout, present, self.columns)))
        told = format_.value if format_ else ""
        return gather(good, bad, odd, heldout=self.heldout, seed=self.seed, max_bad=share(self.max_bad), format=told)

    def fingerprint(self) -> str | None:
        """Hash of the settings and of the bytes of the files; None for a data set of the hub, which has no files here.

        With the same fingerprint `load` gives the same, so that it need not be called.
        """
        files = local_files(self.path, self.split)
        return None if files is None else fingerprint_of(self, files)

    def _check_columns(self, layout: Layout | None) -> None:
        for column in self.columns if layout else ():
            if layout and column not in layout.uses:
                raise UserError(f"columns.{column}: the format has no such column; {nearest(column, layout.uses)}")

    def _check_sides(self, head: Iterable[Row | BadRow]) -> None:
        """UserError for a side under a misspelt name: such rows look like those of a format with fewer sides."""
        rows = [row for row in head if isinstance(row, Row)]
        mapped = {self.columns.get(side, side) for side in SIDES}
        for wrong, right in misspelt({column for row in rows for column in row.cells}, mapped):
            raise UserError(
                f"{self.path}: column {wrong!r}: did you mean {right!r}? Rename it, or set columns={{{right}: {wrong}}}"
            )

    def _format(self, head: Iterable[Row | BadRow]) -> Format | None:
        """The given format, or the commonest among the readable rows; None when no row is readable."""
        if self.format is not Format.AUTO:
            return self.format
        ours = {theirs: name for name, theirs in self.columns.items()}
        rows = [row for row in head if isinstance(row, Row)]
        found = Counter(detect({ours.get(c, c): value for c, value in row.cells.items()}) for row in rows)
        known = [(count, name) for name, count in found.items() if name is not None]
        if known:
            return max(known, key=lambda pair: pair[0])[1]
        if not rows:
            return None
        present = {ours.get(column, column) for row in rows for column in row.cells}
        needed = {column for layout in LAYOUTS.values() for need in layout.needs for column in need}
        guesses = [f"  column {wrong!r}: did you mean {right!r}?\n" for wrong, right in misspelt(present, needed)]
        if not guesses and (known_as := unreadable(present)):
            raise UserError(f"{self.path}: these are {known_as}")
        columns = ", ".join(sorted({column for row in rows for column in row.cells})[:20])
        wanted = "\n".join(f"  {name.value}: {', '.join(sorted(layout.needs[0]))}" for name, layout in LAYOUTS.items())
        raise UserError(
            f"{self.path}: no known format has these columns: {columns}\n{''.join(guesses)}{wanted}\n"
            "  set `format`, and `columns` where they are named differently"
        )


def _unused(layout: Layout, present: Mapping[str, int], names: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Columns that nobody reads, with a guess where one looks like a misspelt name."""
    read = {part for column in layout.uses for part in outermost(names.get(column, column))}
    absent = [column for column in read if column not in present]
    for column, count in present.items():
        if column not in read:
            close = get_close_matches(column, absent, n=1, cutoff=0.8)
            yield f"column {column!r} is ignored" + (f"; did you mean {close[0]!r}?" if close else ""), count
