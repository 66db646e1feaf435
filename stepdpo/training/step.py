"""Passes over pairs: reference scores, losses, gradients, and metrics summed over processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stepdpo.tokens.batch import CHOSEN, REJECTED, LossOutput, PairScores
from stepdpo.tokens.batch_sampler import Group, Piece, pieces
from stepdpo.tokens.preprocess import Material, Trees
from stepdpo.training.reference import References


@dataclass(frozen=True)
class Share:
    """One process's part of an update or of a look, ready to be computed: pieces that know their reference scores."""

    pairs: int
    """Of all processes."""
    pieces: tuple[Piece, ...]
    mismatched: tuple[Piece, ...]
    """For the reference point."""


class Scoring:
    """An engine, a loss, and the reference's numbers."""

    def __init__(self, engine: Any, loss: Any, tokens: int, references: References, group: Group = Group.none) -> None:
        self.engine, self.loss, self.tokens, self.references, self.group = engine, loss, tokens, references, group
        self.compares = "reference" in loss.needs
        self.mismatched: Trees | None = None

    def prepare(self, material: Material) -> None:
        """Make ready what the loss wants to know of the reference, which the policy still is at this moment."""
        self.mismatched = material.mismatched
        if self.compares:
            self.references.prepare(material)

    def share(self, trees: Trees, ids: Sequence[int], name: str) -> Share:
        """This process's part of the pairs `ids`; touches no engine, so it may be made while another is computed."""
        point: Sequence[int] = ()
        if self.mismatched and "reference_point" in self.loss.needs:
            wanted = ids if name == "train" else self.mismatched.ids[: len(ids)].tolist()
            point = [i for i in wanted if i in self.mismatched]
        return Share(
            pairs=len(ids),
            pieces=self._pieces(trees, ids, name),
            mismatched=self._pieces(self.mismatched, point, "mismatched") if self.mismatched and point else (),
        )

    def _pieces(self, trees: Trees, ids: Sequence[int], name: str) -> tuple[Piece, ...]:
        share = pieces(trees, ids, self.tokens, self.engine.rank, self.engine.world, self.group)
        if not self.compares:
            return tuple(share)
        return tuple(replace(piece, batch=self.references.attach(piece.batch, name)) for piece in share)

    def passes(self, trees: Trees, ids: Sequence[int], name: str, learn: bool) -> dict[str, float]:
        """`compute` for some pairs, with nothing prepared."""
        return self.compute(self.share(trees, ids, name), learn)

    def compute(self, share: Share, learn: bool) -> dict[str, float]:
        """Mean metrics over the pairs of all processes; with `learn`, the gradient of their mean loss is added.

        `tokens` and `pairs` are totals.
        """
        point = self._reference_point(share)
        sums: dict[str, Tensor] = {}
        for number, piece in enumerate(share.pieces):
            scores = self._scores(piece, point)
            out = self.loss(scores)
            self._tally(sums, piece, scores, out)
            if learn:
                loss = out.losses_B.sum() * (piece.weight / share.pairs)
                self.engine.backward(loss, last=number == len(share.pieces) - 1)
        names = sorted(sums)
        totals = self.engine.total(torch.stack([sums[n] for n in names])).tolist()
        metrics = {n: v / (1 if n == "tokens" else share.pairs) for n, v in zip(names, totals, strict=True)}
        return {**metrics, "pairs": float(share.pairs)}

    def _tally(self, sums: dict[str, Tensor], piece: Piece, scores: PairScores, out: LossOutput) -> None:
        values = {"loss": out.losses_B, "logps/chosen": scores.chosen_logps_B, **out.metrics_B}
        if "rejected" in self.loss.needs:
            values["logps/rejected"] = scores.rejected_logps_B
            values["rewards/chosen"], values["rewards/rejected"] = out.chosen_rewards_B, out.rejected_rewards_B
            values["rewards/margins"] = out.chosen_rewards_B - out.rejected_rewards_B
            values["rewards/accuracies"] = (values["rewards/margins"] > 0).float()
        values["tokens"] = torch.tensor(float(piece.batch.input_ids_RL.numel()))
        for key, value in values.items():
            summed = value.detach().double().sum().cpu() * piece.weight
            sums[key] = sums[key] + summed if key in sums else summed

    def _scores(self, piece: Piece, point: Tensor | None = None) -> PairScores:
        batch = self.references.live(piece.batch) if self.compares else piece.batch
        logps_B2, kl_B2, tokens_B2, _ = self.engine.score(batch)
        device = logps_B2.device
        known = batch.reference_logps_B2.to(device) if batch.reference_logps_B2 is not None else None
        has_kl = batch.reference_hidden_TH is not None
        return PairScores(
            chosen_logps_B=logps_B2[:, CHOSEN],
            rejected_logps_B=logps_B2[:, REJECTED],
            chosen_tokens_B=tokens_B2[:, CHOSEN],
            rejected_tokens_B=tokens_B2[:, REJECTED],
            confidence_B=batch.confidence_B.to(device),
            reference_chosen_logps_B=known[:, CHOSEN] if known is not None else None,
            reference_rejected_logps_B=known[:, REJECTED] if known is not None else None,
            chosen_kl_B=kl_B2[:, CHOSEN] if has_kl else None,
            rejected_kl_B=kl_B2[:, REJECTED] if has_kl else None,
            reference_point=point.to(device) if point is not None else None,
        )

    @torch.no_grad()
    def _reference_point(self, share: Share) -> Tensor | None:
        """KTO's z0: mean log-ratio of mismatched pairs over the whole update, not below 0 (arXiv 2402.01306, eq. 6)."""
        if "reference_point" not in self.loss.needs:
            return None
        sums = torch.zeros(2, dtype=torch.float64)
        for piece in share.mismatched:
            ratios_B = self._scores(piece).chosen_logratios_B.double().cpu()
            sums += torch.stack([ratios_B.sum(), torch.tensor(float(len(ratios_B)))]) * piece.weight
        total, count = self.engine.total(sums).tolist()
        return torch.tensor(max(0.0, total / max(1.0, count)))
