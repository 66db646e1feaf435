"""Preferences -> pairs -> tokens -> the files of a cache entry, a few thousand pairs at a time."""

from __future__ import annotations

import dataclasses
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
from stepdpo.tokens.examples import Unit, batches, examples, unit_of
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.token_store_writer import StoreInfo, store_writer, verify
from stepdpo.tokens.token_tree import TokenSequence
from stepdpo.tokens.tokenization import tokenize

CANNOT_BE_READ = "bad rows (quarantine.jsonl)"
CALLED_WRONG = "labelled wrong"
NAMES = ("train", "heldout", "mismatched")
REPORT = "report.json"
CHUNK = 2048
"""Pairs whose texts and tokens exist at the same time: a batch for the tokenizer's threads, megabytes and no more."""
EVERY = 5.0
"""Seconds between two lines about how far it is: most data take less, and say nothing."""
StoredExample = tuple[int, list[TokenSequence], float, int]
"""(number of the example, its sequences, confidence, group)."""


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
    unit: str = "pairs"
    """What an example is."""

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
        unit=raw["unit"],
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
    unit, steps, rest = unit_of(needs), "steps" in needs, "rest" in needs
    if unit is Unit.pairs and not any(preference.rejected for preference in train):
        graded = any(preference.label is not None and preference.label < 1 for preference in train)
        fitting = "a loss of single labelled responses (algo=outcome, algo=stepkto)" if graded else "algo=sft"
        # A run that searched has both: its trees, which are single responses, and the pairs that were cut of them.
        fitting += ", or take the pairs of the same run (dataset=RUN/preferences.jsonl)" if graded else ""
        raise UserError(f"dataset: has no rejected sides, which this algo needs; train on it with {fitting}")

    def pair(preference: Preference) -> Pair:
        return keep_scored_sides(level(preference), unit is not Unit.chosen)

    def refuse(name: str, refused: Mapping[int, str]) -> None:
        places, preferences = {"heldout": (loaded.heldout_places, heldout)}.get(name, (loaded.places, train))
        for number, reason in refused.items():
            place = places[number] if places else f"pair:{number}"
            bad.setdefault(place, bad_row(place, reason, preferences[number].question))
        dropped.update({CANNOT_BE_READ: len(refused)} if name == "train" and refused else {})

    def rows(
        name: str, preferences: Sequence[Preference], unit: Unit, pair_of: Callable[[int], Pair]
    ) -> Iterator[StoredExample]:
        groups: dict[bytes, int] = {}
        left_out = dropped if name == "train" else Counter[str]()
        labelled = "labels" in needs and name != "mismatched"  # nobody says how right another's answer is
        with Progress(f"tokenised {name} pair", len(preferences), enabled=show, every=EVERY) as progress:
            for numbers in batches(preferences, unit, CHUNK):
                pairs = {number: pair_of(number) for number in numbers}
                if "right" in needs:
                    pairs = _without_wrong(pairs, left_out)
                done = tokenize(
                    list(pairs.values()), template, tokenizer, lengths, list(pairs), steps, rest and unit is Unit.pairs
                )
                lacking = _without_rejected(pairs) if unit is Unit.pairs else {}
                if name != "mismatched":  # made of rows that have been looked at
                    refuse(name, done.refused | lacking)
                whole = [(n, pairs[n], found) for n, found in done.sequences.items() if n not in lacking]
                for _, one, found in whole if name == "train" else ():
                    ends.update((one.chosen_ends, one.rejected_ends)[: len(found)])
                left_out.update(done.dropped)
                for number, sequences, confidence, key in examples(whole, unit, labelled, left_out, pairs):
                    yield number, sequences, confidence, groups.setdefault(key, len(groups))
                progress.advance(len(numbers))

    sources = {
        "train": rows("train", train, unit, lambda n: pair(train[n])),
        "heldout": rows("heldout", heldout, unit, lambda n: pair(heldout[n])),
    }
    if "reference_point" in needs:
        other = next_other_question([p.question for p in train])
        alone = unit if unit is Unit.responses else Unit.chosen  # numbered as the examples are
        sources["mismatched"] = rows(
            "mismatched", train, alone, lambda n: mismatched(pair(train[n]), pair(train[other[n]]))
        )
    stores = write_stores(folder, sources)
    found = loaded.with_bad(bad.values())
    report = PreprocessReport.of(found)
    report = dataclasses.replace(
        report,
        pairs=len(train),
        dropped=dict(dropped),
        stores=stores,
        sides=ends.total(),
        ended=ends[True],
        unit=unit.value,
    )
    write_report(folder, report)
    return found


def write_stores(folder: Path, rows: Mapping[str, Iterable[StoredExample]]) -> dict[str, StoreInfo]:
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


def keep_scored_sides(pair: Pair, both: bool) -> Pair:
    """Without the rejected side, where the loss does not look at it."""
    if both or not pair.rejected:
        return pair
    label = 1.0 if pair.label is None else pair.label
    return dataclasses.replace(
        pair, rejected="", rejected_ends=False, confidence=1.0, label=label, rejected_steps=(), rejected_weights=()
    )


def _without_rejected(pairs: Mapping[int, Pair]) -> dict[int, str]:
    """Among pairs that have one: number -> what is wrong."""
    return {n: "has no rejected side, which this algo needs" for n, p in pairs.items() if not p.rejected}


def _without_wrong(pairs: Mapping[int, Pair], dropped: Counter[str]) -> dict[int, Pair]:
    """Those whose label is not below 1/2, or that have none; the others are counted."""
    kept = {n: p for n, p in pairs.items() if p.label is None or p.label >= 0.5}
    dropped.update({CALLED_WRONG: len(pairs) - len(kept)} if len(kept) < len(pairs) else {})
    return kept


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
