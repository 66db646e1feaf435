"""The reference's scores, computed once by the policy while it still is the reference.

For losses without a KL two numbers a pair; with one, the reference's final hidden states at the scored positions
(H numbers instead of V), from which its frozen head gives exact log-probabilities again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from stepdpo.batch import TreeBatch
from stepdpo.feed import Piece
from stepdpo.store import TokenStore


@torch.no_grad()
def write_shard(engine: Any, pieces: Iterable[Piece], trees: TokenStore, keep_hidden: bool, path: Path) -> None:
    """Score this process's pieces with the model as it is now, and write them as one safetensors file."""
    ids: list[int] = []
    logps: list[Tensor] = []
    hidden: list[Tensor] = []
    for piece in pieces:
        logps_B2, _, _, hidden_TH = engine.score(piece.batch)
        if piece.weight == 0:
            continue
        ids += piece.batch.pair_ids
        logps.append(logps_B2.cpu())
        if keep_hidden:
            own = piece.batch.prediction_P
            hidden.append((hidden_TH if own is None else hidden_TH[own.to(hidden_TH.device)]).cpu())
    counts = torch.tensor([0, *trees.predictions(ids).tolist()])
    shard = {"ids": torch.tensor(ids), "starts": counts.cumsum(0)}
    shard["logps"] = torch.cat(logps) if logps else torch.zeros(0, 2)
    if keep_hidden:
        shard["hidden"] = torch.cat(hidden) if hidden else torch.zeros(0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(shard, path)


class ReferenceScores:
    """Shards on disc, opened as memory maps: only the rows of a batch are ever read."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.files: list[Any] = []
        self.place: dict[int, tuple[int, int]] = {}
        self.logps: list[Tensor] = []
        self.starts: list[Tensor] = []
        self._open = ExitStack()
        for number, path in enumerate(paths):
            file = self._open.enter_context(safe_open(path, framework="pt"))
            self.files.append(file)
            self.logps.append(file.get_tensor("logps"))
            self.starts.append(file.get_tensor("starts"))
            self.place.update((int(i), (number, row)) for row, i in enumerate(file.get_tensor("ids").tolist()))
        self.has_hidden = all("hidden" in file.keys() for file in self.files)  # noqa: SIM118 - not a dict

    def attach(self, batch: TreeBatch) -> TreeBatch:
        """The batch with the reference's numbers for its pairs."""
        places = [self.place[i] for i in batch.pair_ids]
        hidden = None
        if self.has_hidden:
            parts = []
            for number, row in places:
                start, stop = self.starts[number][row : row + 2].tolist()
                parts.append(self.files[number].get_slice("hidden")[start:stop])
            hidden = torch.cat(parts)
            if batch.prediction_P is not None:  # of predictions that pairs share, any pair's will do
                hidden = hidden.new_zeros(len(batch.target_T), hidden.shape[1]).index_copy(
                    0, batch.prediction_P, hidden
                )
        return dataclasses.replace(
            batch,
            reference_logps_B2=torch.stack([self.logps[number][row] for number, row in places]),
            reference_hidden_TH=hidden,
        )

    def __enter__(self) -> ReferenceScores:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
