"""Preferences as token trees: everything a training run reads, prepared once and kept for the next run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.data.validation import enforce, write_quarantine
from stepdpo.runtime import artifact_cache as caches
from stepdpo.runtime.run_folder import QUARANTINE
from stepdpo.tokens.fingerprint import cache_key, data_identity
from stepdpo.tokens.preprocess_worker import NAMES, PreprocessReport, preprocess, read_report, verify_entry
from stepdpo.tokens.token_store import TokenStore, open_store
from stepdpo.tokens.tokenization import Lengths

Trees = TokenStore


@dataclass(frozen=True)
class TokenizedDataset:
    """Trees by pair number; numbers of dropped pairs are simply absent."""

    train: Trees
    heldout: Trees
    mismatched: Trees
    """Each question with another pair's chosen side, for losses that need a reference point; else empty."""
    fingerprint: str
    """Hash of the training trees: the same data under the same template and level."""
    identity: Mapping[str, str]
    """By name of the trees: a hash of their numbers, what is read and what is scored."""

    def named(self) -> dict[str, Trees]:
        """All trees by name."""
        return {"train": self.train, "heldout": self.heldout, "mismatched": self.mismatched}


def prepare(
    dataset: Any,
    level: Any,
    template: Any,
    needs: frozenset[str],
    tokenizer: Any,
    lengths: Lengths,
    folder: Path,
    is_main_process: bool,
    makes: bool = True,
    any_failed: Callable[[bool], bool] = bool,
) -> TokenizedDataset:
    """Tokens of the data, from the cache, else load, check, cut to the level and tokenise them first.

    Counts are printed and bad rows go to quarantine.jsonl either way. One process of a machine `makes` what is not
    there; `any_failed` tells every process whether one could not, and makes the others wait until then.
    Raises UserError when too many rows are bad or nothing is left to train on.
    """
    data, loaded = data_identity(dataset)
    key = cache_key(data, level, template, tokenizer, lengths, needs)
    entry = caches.entry("tokens", key)
    failure: Exception | None = None
    missing = makes and not _whole(entry)
    if missing:
        try:
            loaded = loaded or dataset.load()
            _say_loaded(PreprocessReport.of(loaded), folder, is_main_process)
            enforce(loaded)
            with caches.building(entry, key) as scratch:
                preprocess(loaded, level, template, needs, tokenizer, lengths, scratch, is_main_process)
        except Exception as error:
            failure = error
    if any_failed(failure is not None):
        raise failure or UserError("the process of this machine that prepares the data could not: see its message")
    return _opened(entry, folder, is_main_process, said=missing)


def _opened(entry: Path, folder: Path, is_main_process: bool, said: bool) -> TokenizedDataset:
    """A whole entry, with the words that go with it; UserError when nothing is left to train on."""
    facts = read_report(entry)
    if not said:
        _say_loaded(facts, folder, is_main_process)
    if is_main_process:
        _say_trained(facts)
    if not facts.stores["train"].pairs:
        raise UserError(f"dataset: no pair is left to train on ({facts.dropped or 'it is empty'})")
    train, heldout, mismatched = (open_store(entry, name) for name in NAMES)
    identity = {name: f"{written.fingerprint}/{written.index}" for name, written in facts.stores.items()}
    return TokenizedDataset(train, heldout, mismatched, facts.stores["train"].fingerprint, identity)


def _whole(entry: Path) -> bool:
    """Whether an entry can be used; a damaged one is said and taken away."""
    if not entry.exists():
        return False
    problem = verify_entry(entry)
    if problem:
        print(f"warning: {entry}: {problem}; the data are tokenised again", flush=True)
        caches.discard(entry)
    return not problem


def _say_loaded(facts: PreprocessReport, folder: Path, is_main_process: bool) -> None:
    if not is_main_process:
        return
    (folder / QUARANTINE).unlink(missing_ok=True)
    if facts.bad:
        write_quarantine(facts.bad, folder / QUARANTINE)
    print("data: " + ", ".join(f"{count} {name}" for name, count in facts.counts.items()), flush=True)


def _say_trained(facts: PreprocessReport) -> None:
    written = facts.stores["train"]
    line = f"training on {written.pairs} of {facts.pairs} pairs, {written.tokens:,} tokens (shared ones counted once)"
    for reason, count in sorted(facts.dropped.items()):
        line += f"; {count} left out: {reason}"
    print(line, flush=True)
