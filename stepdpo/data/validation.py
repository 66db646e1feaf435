"""What loading gives: preferences, held-out preferences, bad rows and findings; nothing is dropped in silence."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from stepdpo.core.errors import UserError
from stepdpo.core.ranges import at_least
from stepdpo.core.types import Preference
from stepdpo.data.preference_file import write_lines
from stepdpo.data.rows import BadRow

SHOWN = 5
"""Bad rows that an error message shows."""
WRONG = "responses labelled wrong"


@dataclass(frozen=True)
class Finding:
    """Something odd about usable preferences, which were kept."""

    kind: str
    """What is odd, in a few words."""
    places: tuple[str, ...]
    """The rows concerned, as `file:line`."""
    question: str


@dataclass(frozen=True)
class Loaded:
    """The outcome of reading one data set."""

    preferences: tuple[Preference, ...]
    heldout: tuple[Preference, ...] = ()
    """Preferences kept from training; none of their questions occurs in `preferences`."""
    bad: tuple[BadRow, ...] = ()
    findings: tuple[Finding, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    """rows, usable, bad, train, heldout, then whatever was odd."""
    max_bad: float = 0.0
    """The share of bad rows that the data set allows."""
    places: tuple[str, ...] = ()
    """Where each of `preferences` comes from, as `file:line`; empty where that is not known."""
    heldout_places: tuple[str, ...] = ()
    """The same of `heldout`."""
    format: str = ""
    """How the rows were laid out, where they were read from files."""

    def with_bad(self, more: Iterable[BadRow]) -> Loaded:
        """The same, with rows that were found to be bad only later, as by a model's chat template: each counts once."""
        bad = (*self.bad, *more)
        gone = {row.place for row in bad}
        train, heldout = (
            [one for one in zip(preferences, places, strict=True) if one[1] not in gone]
            if places
            else [(preference, "") for preference in preferences]
            for preferences, places in ((self.preferences, self.places), (self.heldout, self.heldout_places))
        )
        counts = {**self.counts, "usable": len(train) + len(heldout), "bad": len(bad)}
        counts |= {"train": len(train), "heldout": len(heldout)}
        return dataclasses.replace(
            self,
            preferences=tuple(preference for preference, _ in train),
            heldout=tuple(preference for preference, _ in heldout),
            bad=bad,
            counts=counts,
            places=tuple(place for _, place in train if place),
            heldout_places=tuple(place for _, place in heldout if place),
        )


class DatasetSpec(Protocol):
    """Any part of the config group `dataset`."""

    def load(self) -> Loaded:
        """Read and validate everything; what cannot be used is in `bad`."""
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A data set that can tell what it is without being loaded."""

    def fingerprint(self) -> str | None:
        """A text that is the same only if `load` gives the same; None where that cannot be known beforehand."""
        ...


def share(value: float | str) -> float:
    """A share in [0, 1] from 0.01 or "1%"; ValueError otherwise."""
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise ValueError(f"expected a share like 0.01 or '1%', got {value!r}") from None
    if not 0 <= number <= 1:
        raise ValueError(f"expected a share between 0 and 1 (or 0% and 100%), got {value!r}")
    return number


def check_settings(max_bad: float | str, heldout: float | str, limit: int | None) -> None:
    """ValueError, under the setting's name, for settings of data that cannot be meant."""
    try:
        share(max_bad)
    except ValueError as error:
        raise ValueError(f"max_bad: {error}") from None
    check_heldout(heldout)
    at_least(1, limit=limit)


def check_heldout(value: float | str) -> None:
    """ValueError, under the setting's name, for what is neither a number nor a share."""
    try:
        amount(value, 0)
    except ValueError as error:
        raise ValueError(f"heldout: {error}") from None


def amount(value: float | str, total: int) -> int:
    """How many of `total`: a whole number is itself; 0.05 and "5%" are shares. ValueError otherwise."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"expected a number of pairs or a share, got {value}")
        return value
    return round(share(value) * total)


def hold_out(
    preferences: Sequence[Preference], heldout: float | str, seed: int
) -> tuple[tuple[Preference, ...], tuple[Preference, ...]]:
    """Split off `heldout` preferences by a hash of the seed and the question: a question lies on one side.

    Whole questions are taken in the order of their hashes until there are enough preferences, so the choice
    does not depend on the order of the rows. White space and case do not make another question.
    """
    # By hash, not by a draw over rows: data in another order, or with a few rows more, hold out nearly the same.
    wanted = amount(heldout, len(preferences))
    keys = [question_key(p.question) for p in preferences]
    sizes: defaultdict[str, int] = defaultdict(int)
    for key in keys:
        sizes[key] += 1
    taken: set[str] = set()
    for key in sorted(sizes, key=lambda k: hashlib.sha256(f"{seed}:{k}".encode()).digest()):
        if wanted <= 0:
            break
        taken.add(key)
        wanted -= sizes[key]
    held = tuple(p for p, key in zip(preferences, keys, strict=True) if key in taken)
    return tuple(p for p, key in zip(preferences, keys, strict=True) if key not in taken), held


def question_key(question: str) -> str:
    """The question without regard to white space and case."""
    return " ".join(question.split()).casefold()


def find_oddities(preferences: Sequence[Preference], places: Sequence[str]) -> tuple[Finding, ...]:
    """Duplicates, opposite preferences, sides that are alike but for white space, and cut-off chosen sides."""
    rows_of: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    findings: list[tuple[str, tuple[int, ...]]] = []
    for i, p in enumerate(preferences):
        context = (p.question, p.prefix, p.history)
        rows_of[(*context, p.chosen, p.rejected)].append(i)
        if p.chosen.split() == p.rejected.split():
            findings.append(("chosen and rejected differ only in white space", (i,)))
        elif p.rejected.startswith(p.chosen):
            findings.append(("chosen is the beginning of rejected", (i,)))
    for (question, prefix, history, chosen, rejected), rows in rows_of.items():
        if len(rows) > 1:
            findings.append(("the same preference more than once", tuple(rows)))
        opposite = rows_of.get((question, prefix, history, rejected, chosen))
        if opposite and rows[0] < opposite[0]:  # each of the two finds the other: told once
            findings.append(("opposite preferences about the same two steps", (*rows, *opposite)))
    return tuple(
        Finding(kind=kind, places=tuple(places[i] for i in rows), question=preferences[rows[0]].question)
        for kind, rows in findings
    )


def gather(
    good: list[tuple[Preference, str]],
    bad: list[BadRow],
    odd: Mapping[str, int],
    *,
    heldout: float | str,
    seed: int,
    max_bad: float,
    format: str = "",
) -> Loaded:
    """Inspect, split and count what was read."""
    preferences = [preference for preference, _ in good]
    findings = find_oddities(preferences, [place for _, place in good])
    train, held = hold_out(preferences, heldout, seed)
    kept = set(map(id, train))  # by identity: equal rows may lie in several places
    where = {in_train: tuple(place for p, place in good if (id(p) in kept) is in_train) for in_train in (True, False)}
    if held and not train:
        raise UserError(f"heldout: {heldout!r} leaves none of the {len(held)} preferences for training")
    counts = {"rows": len(good) + len(bad), "usable": len(good), "bad": len(bad)}
    counts |= {"train": len(train), "heldout": len(held)}
    counts |= Counter(finding.kind for finding in findings)
    wrong = sum(p.label is not None and p.label < 0.5 for p in preferences)
    counts |= {name: count for name, count in {**odd, WRONG: wrong}.items() if count}
    return Loaded(train, held, tuple(bad), findings, counts, max_bad, where[True], where[False], format)


def enforce(loaded: Loaded, max_bad: float | str | None = None) -> None:
    """UserError when the share of bad rows exceeds max_bad (default: what the data set allows), or all are bad."""
    allowed = loaded.max_bad if max_bad is None else share(max_bad)
    bad, usable = len(loaded.bad), len(loaded.preferences) + len(loaded.heldout)
    if usable and (not bad or bad / (bad + usable) <= allowed):
        return
    if not bad:
        raise UserError("the data hold no usable row")
    lines = [f"  {row.place}: {row.reason}" for row in loaded.bad[:SHOWN]]
    if bad > SHOWN:
        lines.append(f"  and {bad - SHOWN} more")
    head = f"{bad} of {bad + usable} rows cannot be used, and max_bad allows {allowed:.4g} of them"
    raise UserError("\n".join([head, *lines, "  `stepdpo check` shows them all"]))


def write_quarantine(bad: Iterable[BadRow], path: Path) -> None:
    """Write every bad row with its place and reason as JSON Lines, whole or not at all."""
    write_lines((json.dumps(row.record(), ensure_ascii=False) for row in bad), path)
