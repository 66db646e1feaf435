"""Preferences -> pairs -> tokens -> the files of a cache entry, a few thousand pairs at a time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Level, Template
from stepdpo.core.types import Pair, Preference
from stepdpo.data.rows import BadRow, bad_row
from stepdpo.data.validation import Loaded
from stepdpo.runtime.atomic_io import write_json
from stepdpo.runtime.progress import Progress
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.token_store_writer import StoreInfo, store_writer, verify
from stepdpo.tokens.token_tree import TokenSequence
from stepdpo.tokens.tokenization import tokenize

CANNOT_BE_READ = "bad rows (quarantine.jsonl)"
NAMES = ("train", "heldout", "mismatched")
REPORT = "report.json"
CHUNK = 2048
"""Pairs whose texts and tokens exist at the same time: a batch for the tokenizer's threads, megabytes and no more."""
EVERY = 5.0
"""Seconds between two lines about how far it is: most data take less, and say nothing."""
TokenizedPair = tuple[int, list[TokenSequence], float, int]
"""(number of the pair, its sequences, confidence, group)."""


@dataclass(frozen=True)
class PreprocessReport:
    """What is known of an entry besides its tokens: what a run prints of its data."""

    counts: Mapping[str, int]
    bad: tuple[BadRow, ...]
    pairs: int
    """Training pairs before any were dropped."""
    dropped: Mapping[str, int]
    """Reason -> count, of training pairs."""
    stores: Mapping[str, StoreInfo]
    format: str
    """How the rows were laid out; empty where nobody says."""
    sides: int = 0
    """Of the training pairs that were kept, those that are scored."""
    ended: int = 0
    """Those that are followed by the end of text."""

    @classmethod
    def of(cls, loaded: Loaded) -> PreprocessReport:
        """As far as loading tells."""
        return cls(loaded.counts, loaded.bad, len(loaded.preferences), {}, {}, loaded.format)


def read_report(entry: Path) -> PreprocessReport:
    """The report of an entry; OSError or ValueError when it cannot be read."""
    raw = json.loads((entry / REPORT).read_text(encoding="utf-8"))
    return PreprocessReport(
        counts=raw["counts"],
        bad=tuple(BadRow(**row) for row in raw["bad"]),
        pairs=raw["pairs"],
        dropped=raw["dropped"],
        stores={name: StoreInfo(**raw["stores"][name]) for name in NAMES},
        format=raw["format"],
        sides=raw["sides"],
        ended=raw["ended"],
    )


def verify_entry(entry: Path) -> str:
    """What is wrong with an entry, or nothing."""
    try:
        report = read_report(entry)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{REPORT} cannot be read ({error})"
    return next(filter(None, (verify(entry, name, report.stores[name]) for name in NAMES)), "")


def preprocess(
    loaded: Loaded,
    level: Level,
    template: Template,
    needs: frozenset[str],
    tokenizer: Any,
    lengths: Lengths,
    folder: Path,
    show: bool,
) -> Loaded:
    """Write all that a run reads of some data into the folder of a cache entry; `show` its progress.

    Returns the data with those rows among the bad ones that turned out to be so only under this template, by this
    tokenizer or for this loss.
    """
    train, heldout = loaded.preferences, loaded.heldout
    dropped: Counter[str] = Counter()
    bad: dict[str, BadRow] = {}
    ends: Counter[bool] = Counter()
    both = "rejected" in needs
    if both and not any(preference.rejected for preference in train):
        raise UserError("dataset: has no rejected sides, which this algo needs; train on it with algo=sft")

    def pair(preference: Preference) -> Pair:
        return keep_scored_sides(level(preference), both)

    def refuse(name: str, refused: Mapping[int, str]) -> None:
        places, preferences = {"heldout": (loaded.heldout_places, heldout)}.get(name, (loaded.places, train))
        for number, reason in refused.items():
            place = places[number] if places else f"pair:{number}"
            bad.setdefault(place, bad_row(place, reason, preferences[number].question))
        dropped.update({CANNOT_BE_READ: len(refused)} if name == "train" and refused else {})

    def rows(name: str, count: int, pair_of: Callable[[int], Pair]) -> Iterator[TokenizedPair]:
        groups: dict[bytes, int] = {}
        with Progress(f"tokenised {name} pair", count, enabled=show, every=EVERY) as progress:
            for first in range(0, count, CHUNK):
                pairs = [pair_of(number) for number in range(first, min(first + CHUNK, count))]
                done = tokenize(pairs, template, tokenizer, lengths, first=first)
                lacking = _without_rejected(pairs, first) if both and name != "mismatched" else {}
                if name != "mismatched":  # made of rows that have been looked at
                    refuse(name, done.refused | lacking)
                for number, sequences in done.sequences.items():
                    if number in lacking:
                        continue
                    one = pairs[number - first]
                    ends.update((one.chosen_ends, one.rejected_ends)[: len(sequences)] if name == "train" else ())
                    yield number, sequences, one.confidence, groups.setdefault(_problem(one), len(groups))
                dropped.update(done.dropped if name == "train" else {})
                progress.advance(len(pairs))

    sources = {
        "train": rows("train", len(train), lambda n: pair(train[n])),
        "heldout": rows("heldout", len(heldout), lambda n: pair(heldout[n])),
    }
    if "reference_point" in needs:
        other = next_other_question([p.question for p in train])
        sources["mismatched"] = rows(
            "mismatched", len(train), lambda n: mismatched(pair(train[n]), pair(train[other[n]]))
        )
    stores = write_stores(folder, sources)
    found = loaded.with_bad(bad.values())
    report = PreprocessReport.of(found)
    report = dataclasses.replace(
        report, pairs=len(train), dropped=dict(dropped), stores=stores, sides=ends.total(), ended=ends[True]
    )
    write_report(folder, report)
    return found


def write_stores(folder: Path, rows: Mapping[str, Iterable[TokenizedPair]]) -> dict[str, StoreInfo]:
    """The stores of an entry, one after another; those that have no rows are empty."""
    stores: dict[str, StoreInfo] = {}
    for name in NAMES:
        with store_writer(folder, name) as writer:
            for row in rows.get(name, ()):
                writer.add(*row)
            stores[name] = writer.finish()
    return stores


def write_report(folder: Path, report: PreprocessReport) -> None:
    """The last file of an entry."""
    write_json(folder / REPORT, {**dataclasses.asdict(report), "bad": [row.record() for row in report.bad]})


def _problem(pair: Pair) -> bytes:
    """What two pairs of one problem have in common."""
    text = repr((pair.question, [(turn.role, turn.content) for turn in pair.history]))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def keep_scored_sides(pair: Pair, both: bool) -> Pair:
    """Without the rejected side, where the loss does not look at it."""
    if both:
        return pair
    return Pair(pair.question, pair.context, pair.chosen, "", pair.chosen_ends, False, 1.0, pair.history)


def _without_rejected(pairs: Sequence[Pair], first: int) -> dict[int, str]:
    """Among pairs that have one: number -> what is wrong."""
    return {n: "has no rejected side, which this algo needs" for n, p in enumerate(pairs, first) if not p.rejected}


def mismatched(own: Pair, other: Pair) -> Pair:
    """One pair's question, answered with another's chosen side."""
    return Pair(own.question, other.context, other.chosen, "", other.chosen_ends, False, 1.0, own.history)


def next_other_question(questions: Sequence[str]) -> list[int]:
    """For each question the place of the next other one (round the end); simply of the next if there is no other."""
    found: list[int] = []
    last = len(questions) - 1
    other = next((place for place, question in enumerate(questions) if question != questions[last]), None)
    # From the end: the next other question of a place is its neighbour's, or what the neighbour found.
    for place in range(last, -1, -1):
        after = (place + 1) % len(questions)
        if questions[after] != questions[place]:
            other = after
        found.append(after if other is None else other)
    return found[::-1]
