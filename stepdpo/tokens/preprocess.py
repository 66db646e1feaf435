"""Preferences as token trees: everything a training run reads, prepared once and kept for the next run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Level, Template
from stepdpo.data.rows import BadRow
from stepdpo.data.validation import DatasetSpec, Loaded, enforce, write_quarantine
from stepdpo.runtime import artifact_cache
from stepdpo.runtime.processes import OneProcess, Processes, any_process
from stepdpo.runtime.run_folder import QUARANTINE
from stepdpo.tokens.examples import Unit
from stepdpo.tokens.fingerprint import cache_key, data_identity
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.preprocess_worker import NAMES, PreprocessReport, preprocess, read_report, verify_entry
from stepdpo.tokens.token_store import TokenStore, open_store


@dataclass(frozen=True)
class TokenizedDataset:
    """Token trees by the number of their pair; numbers of dropped pairs are simply absent."""

    train: TokenStore
    heldout: TokenStore
    mismatched: TokenStore
    """Each question with another pair's chosen side, for losses that need a reference point; else empty."""
    fingerprint: str
    """Hash of the training trees: the same data under the same template and level."""
    identity: Mapping[str, str]
    """By name of the trees: a hash of their numbers, what is read and what is scored."""
    facts: Mapping[str, Any]
    """What a run's folder keeps of its data: enough to tell them from others, and none of them."""

    def named(self) -> dict[str, TokenStore]:
        """All trees by name."""
        return {"train": self.train, "heldout": self.heldout, "mismatched": self.mismatched}


def prepare(
    dataset: DatasetSpec,
    level: Level,
    template: Template,
    needs: frozenset[str],
    tokenizer: Any,
    lengths: Lengths,
    folder: Path,
    processes: Processes = OneProcess(),  # noqa: B008 - frozen
) -> TokenizedDataset:
    """Tokens of the data, from the cache, else load, check, cut to the level and tokenise them first.

    Counts are printed and bad rows go to quarantine.jsonl of the run's `folder` either way. On every machine the first
    process makes what is not there, as its cache may be no other machine's; the others wait until it has.
    Raises UserError when too many rows are bad or nothing is left to train on.
    """
    data, loaded = data_identity(dataset)
    key = cache_key(data, level, template, tokenizer, lengths, needs)
    entry, show = artifact_cache.entry("tokens", key), processes.rank == 0
    failure: Exception | None = None
    missing = processes.local_rank == 0 and not _whole(entry)
    if missing:
        try:
            loaded = loaded or dataset.load()
            _announce_rows(PreprocessReport.of(loaded), folder, show)
            _make(entry, key, loaded, level, template, needs, tokenizer, lengths, folder, show)
        except Exception as error:  # the others must hear of it before this process ends, else they wait for ever
            failure = error
    if any_process(processes, failure is not None):
        raise failure or UserError("the process of this machine that prepares the data could not: see its message")
    report = read_report(entry)
    if not missing:
        _announce_rows(report, folder, show)
    _announce_pairs(report, show)
    return _opened(entry, report)


def _make(
    entry: Path, key: Mapping[str, Any], loaded: Loaded, level: Level, template: Template, needs: frozenset[str],
    tokenizer: Any, lengths: Lengths, folder: Path, show: bool,
) -> None:  # fmt: skip
    enforce(loaded)
    with artifact_cache.building(entry, key) as scratch:
        found = preprocess(loaded, level, template, needs, tokenizer, lengths, scratch, show)
        _keep_bad(found.bad, folder, show)
        enforce(found)


def _facts(report: PreprocessReport) -> dict[str, Any]:
    store = report.stores["train"]
    return {
        "format": report.format,
        "rows": dict(report.counts),
        "unit": report.unit,
        "trained_on": store.pairs,
        "tokens": store.tokens,
        "left_out": dict(report.dropped),
        "fingerprint": store.fingerprint,
    }


def _opened(entry: Path, report: PreprocessReport) -> TokenizedDataset:
    """A whole entry; UserError when nothing is left to train on."""
    if not report.stores["train"].pairs:
        raise UserError(f"dataset: no pair is left to train on ({report.dropped or 'it is empty'})")
    train, heldout, mismatched = (open_store(entry, name) for name in NAMES)
    identity = {name: f"{store.fingerprint}/{store.index}" for name, store in report.stores.items()}
    return TokenizedDataset(train, heldout, mismatched, report.stores["train"].fingerprint, identity, _facts(report))


def _whole(entry: Path) -> bool:
    """Whether an entry can be used; a damaged one is reported and taken away."""
    if not entry.exists():
        return False
    problem = verify_entry(entry)
    if problem:
        print(f"warning: {entry}: {problem}; the data are tokenised again", flush=True)
        artifact_cache.discard(entry)
    return not problem


def _announce_rows(report: PreprocessReport, folder: Path, show: bool) -> None:
    """What became of the rows; bad ones are kept in the run's quarantine."""
    _keep_bad(report.bad, folder, show)
    if not show:
        return
    layout = [f"format {report.format}"] if report.format else []
    ignored = [name for name in report.counts if name.startswith("column ")]
    counts = (f"{count} {name}" for name, count in report.counts.items() if name not in ignored)
    print("data: " + ", ".join([*layout, *counts]), flush=True)
    for name in ignored:  # each on a line of its own: among numbers it would be read past
        print(f"data: {name} ({report.counts[name]} rows)", flush=True)


def _keep_bad(bad: Sequence[BadRow], folder: Path, show: bool) -> None:
    if show:
        (folder / QUARANTINE).unlink(missing_ok=True)
        if bad:
            write_quarantine(bad, folder / QUARANTINE)


def _announce_pairs(report: PreprocessReport, show: bool) -> None:
    """What is trained on, and why some pairs are not."""
    if not show:
        return
    store = report.stores["train"]
    plain = report.unit in (Unit.pairs.value, Unit.chosen.value)  # then an example is a row
    of_rows = f"of {report.pairs} pairs" if plain else f"{report.unit} of {report.pairs} rows"
    line = f"training on {store.pairs} {of_rows}, {store.tokens:,} tokens (shared ones counted once)"
    for reason, count in sorted(report.dropped.items()):
        line += f"; {count} left out: {reason}"
    print(f"{line}; the end of text follows {report.ended:,} of {report.sides:,} sides", flush=True)
