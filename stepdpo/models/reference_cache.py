"""The reference's scores on disc: written once, read row by row for every run that trains from the same weights.

A number a response; for losses with a KL also the reference's final hidden states at the scored positions (H numbers
instead of V), from which its frozen head gives exact log-probabilities again; for losses that look at steps the
log-probability of every scored token.

    reference/90ab.../
        key.json                        what the scores were made from
        train-00000-0000.safetensors    of process 0: ids, responses (n), logps (responses), starts (n + 1),
                                        hidden (predictions, H), tokens (predictions)
        train.json                      every file with its size and sha256
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from stepdpo.models.scorer import Scores
from stepdpo.runtime.atomic_io import write_json
from stepdpo.tokens.batch import TreeBatch
from stepdpo.tokens.batch_sampler import MicroBatch
from stepdpo.tokens.token_store import TokenStore

FULL, MANY = 256 * 2**20, 100_000
"""Bytes of hidden states, or pairs, that a process holds before it writes a file: memory stays flat, files few."""


@torch.no_grad()
def write_shards(
    score: Callable[[TreeBatch], Scores],
    rank: int,
    micro_batches: Iterable[MicroBatch],
    trees: TokenStore,
    keep_hidden: bool,
    folder: Path,
    name: str,
) -> None:
    """Score this process's micro-batches with the model as it is now, and write them as safetensors files of `name`.

    `score` is `Scorer.forward`, as an engine runs it; `rank` is the process's number, which its files are named by.
    Every process writes at least one file, so that it can be told from one that never came.
    """
    shard = _Shard(trees, keep_hidden)
    number = 0
    for micro_batch in micro_batches:
        scores = score(micro_batch.batch)
        if micro_batch.weight == 0:  # a stand-in, that all processes make equally many passes
            continue
        shard.add(micro_batch.batch, scores)
        if shard.bytes >= FULL or len(shard.ids) >= MANY:
            shard.write(folder / f"{name}-{rank:05d}-{number:04d}.safetensors")
            shard, number = _Shard(trees, keep_hidden), number + 1
    shard.write(folder / f"{name}-{rank:05d}-{number:04d}.safetensors")


class _Shard:
    """Scores of some pairs, not yet written."""

    def __init__(self, trees: TokenStore, keep_hidden: bool) -> None:
        self.trees, self.keep_hidden = trees, keep_hidden
        self.ids: list[int] = []
        self.responses: list[int] = []
        self.logps: list[Tensor] = []
        self.predictions: dict[str, list[Tensor]] = {}
        """By name: a row for every prediction."""
        self.bytes = 0

    def add(self, batch: TreeBatch, scores: Scores) -> None:
        self.ids += batch.pair_ids
        self.responses += batch.responses
        self.logps.append(scores.logps_R.cpu())
        kept = {"hidden": scores.hidden_TH if self.keep_hidden else None, "tokens": scores.logps_T}
        for name, values in kept.items():
            if values is None:
                continue
            # A tree of several examples holds a shared prediction once. On disc every example has its own copy, so
            # that any batch can be put together from the rows of its examples.
            own = batch.prediction_P
            rows = (values if own is None else values[own.to(values.device)]).cpu()
            self.predictions.setdefault(name, []).append(rows)
            self.bytes += rows.nbytes

    def write(self, path: Path) -> None:
        counts = torch.tensor([0, *self.trees.predictions(self.ids).tolist()])
        tensors = {"ids": torch.tensor(self.ids, dtype=torch.int64), "starts": counts.cumsum(0)}
        tensors["responses"] = torch.tensor(self.responses, dtype=torch.int64)
        tensors["logps"] = torch.cat(self.logps) if self.logps else torch.zeros(0, dtype=torch.float64)
        save_file({**tensors, **{name: torch.cat(rows) for name, rows in self.predictions.items()}}, path)


def seal(folder: Path, name: str) -> None:
    """List the files of `name` with their sizes and hashes, once every process has written its own."""
    files = sorted(folder.glob(f"{name}-*.safetensors"))
    write_json(folder / f"{name}.json", {path.name: [path.stat().st_size, _hash(path)] for path in files})


def verify(folder: Path, name: str, part: int = 0, parts: int = 1) -> str:
    """What is wrong with the files of `name`, or nothing; `part` of `parts` processes reads only its share of them."""
    try:
        listed: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for number, (file, (size, digest)) in enumerate(sorted(listed.items())):
            path = folder / file
            # Sizes of all files by every process, contents each by one: together they read the whole cache once.
            if path.stat().st_size != size or (number % parts == part and _hash(path) != digest):
                return f"{file} has changed since it was written"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"{name}.json cannot be read ({error})"
    return "" if listed else f"{name}.json lists no file"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ReferenceScores:
    """The scores of one set of examples, by their numbers.

    A number a response is held in memory. What there is of every prediction is read when a batch asks for it, from
    files that are opened for that and closed again: what a memory map once touched would stay in memory.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        ids, logps, responses, starts, counts, files = [], [], [], [], [], []
        self.names: set[str] = set()
        """What there is of every prediction."""
        for number, path in enumerate(self.paths):
            with safe_open(path, framework="pt") as file:
                ids.append(file.get_tensor("ids").numpy().copy())
                logps.append(file.get_tensor("logps").clone())
                responses.append(file.get_tensor("responses").numpy().copy())
                bounds = file.get_tensor("starts").numpy()
                self.names |= {"hidden", "tokens"} & set(file.keys())
            starts.append(bounds[:-1].copy())
            counts.append(np.diff(bounds).astype(np.int32))
            files.append(np.full(len(ids[-1]), number, np.int32))
        everything = np.concatenate(ids)
        order = np.argsort(everything, kind="stable")
        self.ids = everything[order]
        self.logps_R = torch.cat(logps)
        each = np.concatenate(responses)
        self.responses, self.first = each[order], (each.cumsum() - each)[order]
        """How many responses an example has, and which row of `logps_R` is its first."""
        self.starts, self.counts, self.files = (np.concatenate(part)[order] for part in (starts, counts, files))

    @classmethod
    def of(cls, folder: Path, name: str) -> ReferenceScores:
        """The files that `seal` listed."""
        listed: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return cls([folder / file for file in sorted(listed)])

    def attach(self, batch: TreeBatch) -> TreeBatch:
        """The batch with the reference's numbers for its pairs. KeyError for a pair that is not there."""
        wanted = np.asarray(batch.pair_ids, np.int64)
        # A number that is not there lands beside its place, or past the end: hence the minimum, and the comparison.
        rows = np.minimum(np.searchsorted(self.ids, wanted), max(0, len(self.ids) - 1))
        if len(self.ids) == 0 or (self.ids[rows] != wanted).any():
            raise KeyError(f"no reference scores for some of the pairs {batch.pair_ids[:5]}...")
        return dataclasses.replace(
            batch,
            reference_logps_R=self.logps_R[torch.from_numpy(self._responses(rows))],
            reference_hidden_TH=self._predictions("hidden", batch, rows) if "hidden" in self.names else None,
            reference_logps_T=self._predictions("tokens", batch, rows) if "tokens" in self.names else None,
        )

    def _responses(self, rows: Any) -> Any:
        """The rows of `logps_R` of some examples, one after another."""
        counts = self.responses[rows]
        before = np.repeat(counts.cumsum() - counts, counts)
        return np.repeat(self.first[rows], counts) + np.arange(len(before)) - before

    def _predictions(self, name: str, batch: TreeBatch, rows: Any) -> Tensor:
        """What there is of every prediction, in the order of the batch's."""
        parts: dict[int, Tensor] = {}
        for number in np.unique(self.files[rows]).tolist():
            with safe_open(self.paths[number], framework="pt") as file:
                stored = file.get_slice(name)
                for place in np.flatnonzero(self.files[rows] == number).tolist():
                    start, count = int(self.starts[rows[place]]), int(self.counts[rows[place]])
                    # Cloned: a view would hold the file's mapping, and with it every page that was read.
                    parts[place] = stored[start : start + count].clone()
        values = torch.cat([parts[place] for place in range(len(rows))])
        if batch.prediction_P is None:
            return values
        # Of predictions that several examples share, any copy will do: they are of one position of one model.
        return values.new_zeros(len(batch.target_T), *values.shape[1:]).index_copy(0, batch.prediction_P, values)
