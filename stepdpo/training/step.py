"""One optimizer step's forward and backward passes: losses, gradients, and metrics summed over processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from stepdpo.core.errors import UserError
from stepdpo.models.loss_inputs import pair_scores, step_scores
from stepdpo.tokens.batch_sampler import BatchSize, MicroBatch, micro_batches
from stepdpo.tokens.pair_scores import Loss, LossOutput, PairScores
from stepdpo.tokens.preprocess import TokenizedDataset
from stepdpo.tokens.step_scores import StepLoss, StepScores
from stepdpo.tokens.token_store import TokenStore
from stepdpo.training.engine.settings import Engine
from stepdpo.training.reference import Reference


@dataclass(frozen=True)
class StepInputs:
    """One process's part of a step (or of held-out pairs), ready to be computed: what the cache knows is attached."""

    pairs: int
    """Of all processes."""
    micro_batches: tuple[MicroBatch, ...]
    mismatched: tuple[MicroBatch, ...]
    """For the reference point."""


class TrainStep:
    """An engine, a loss, and the reference's numbers."""

    def __init__(self, engine: Engine, loss: Loss | StepLoss, batch: BatchSize, reference: Reference) -> None:
        self.engine, self.loss, self.batch, self.reference = engine, loss, batch, reference
        self.mismatched: TokenStore | None = None

    def prepare(self, tokenized: TokenizedDataset) -> None:
        """Make ready what the loss wants to know of the reference, which the policy still is at this moment."""
        self.mismatched = tokenized.mismatched
        self.reference.prepare(tokenized)

    def inputs(self, trees: TokenStore, ids: Sequence[int], name: str) -> StepInputs:
        """This process's part of the pairs `ids`; touches no engine, so it may be made while another is computed."""
        point: Sequence[int] = ()
        if self.mismatched and "reference_point" in self.loss.needs:
            wanted = ids if name == "train" else self.mismatched.ids[: len(ids)].tolist()
            point = [i for i in wanted if i in self.mismatched]
        return StepInputs(
            pairs=len(ids),
            micro_batches=self._micro_batches(trees, ids, name),
            mismatched=self._micro_batches(self.mismatched, point, "mismatched") if self.mismatched and point else (),
        )

    def _micro_batches(self, trees: TokenStore, ids: Sequence[int], name: str) -> tuple[MicroBatch, ...]:
        engine, batch = self.engine, self.batch
        share = micro_batches(trees, ids, batch.tokens, engine.rank, engine.world_size, batch.group)
        return tuple(replace(one, batch=self.reference.attach_cached(one.batch, name)) for one in share)

    def evaluate(self, trees: TokenStore, ids: Sequence[int], name: str) -> dict[str, float]:
        """`compute` for some pairs, with nothing prepared and nothing learnt."""
        return self.compute(self.inputs(trees, ids, name), learn=False)

    def compute(self, inputs: StepInputs, learn: bool) -> dict[str, float]:
        """Mean metrics over the pairs of all processes; with `learn`, the gradient of their mean loss is added.

        `tokens` and `pairs` are totals.
        """
        point = self._reference_point(inputs)
        sums: dict[str, Tensor] = {}
        for number, micro_batch in enumerate(inputs.micro_batches):
            scores, out = self._losses(micro_batch, point)
            if out.losses_B.shape != scores.confidence_B.shape:  # a mean would be summed as if it were one pair's loss
                shape, pairs = tuple(out.losses_B.shape), micro_batch.batch.pairs
                raise UserError(f"algo: the loss returned shape {shape} for {pairs} pairs; expected one number a pair")
            self._tally(sums, micro_batch, scores, out)
            if learn:
                # Divided by the pairs of the whole step, not of the micro-batch: packing never weighs a pair.
                loss = out.losses_B.sum() * (micro_batch.weight / inputs.pairs)
                self.engine.backward(loss, last=number == len(inputs.micro_batches) - 1)
        names = sorted(sums)  # the same order on every process, as the sums travel without their names
        totals = self.engine.all_reduce_sum([float(sums[name]) for name in names])
        metrics = {n: v / (1 if n == "tokens" else inputs.pairs) for n, v in zip(names, totals, strict=True)}
        return {**metrics, "pairs": float(inputs.pairs)}

    def _losses(self, micro_batch: MicroBatch, point: Tensor | None) -> tuple[PairScores | StepScores, LossOutput]:
        batch = self.reference.attach_online(micro_batch.batch)
        found = self.engine.score(batch)
        if batch.steps is not None:
            steps = step_scores(batch, found, point)
            return steps, cast(StepLoss, self.loss)(steps)
        scores = pair_scores(batch, found, point)
        return scores, cast(Loss, self.loss)(scores)

    def _tally(
        self, sums: dict[str, Tensor], micro_batch: MicroBatch, scores: PairScores | StepScores, out: LossOutput
    ) -> None:
        values = {"loss": out.losses_B, "logps/chosen": scores.chosen_logps_B, **out.metrics_B}
        values["logps/chosen_per_token"] = scores.chosen_logps_per_token_B
        if {"rejected", "group"} & self.loss.needs:
            if "reference" in self.loss.needs:
                values["logratios/chosen"] = scores.chosen_logratios_B
                values["chosen_fell"] = (scores.chosen_logratios_B < 0).float()
                values["logratios/chosen_per_token"] = scores.chosen_logratios_per_token_B
                # Of those that fell alone: in the mean of all, what others have gained would hide it.
                values["chosen_lost_per_token"] = (-scores.chosen_logratios_per_token_B).clamp(min=0)
            values["logps/rejected"] = scores.rejected_logps_B
            values["logps/rejected_per_token"] = scores.rejected_logps_per_token_B
            values["rewards/chosen"], values["rewards/rejected"] = out.chosen_rewards_B, out.rejected_rewards_B
            values["rewards/margins"] = out.chosen_rewards_B - out.rejected_rewards_B
            values["rewards/accuracies"] = (values["rewards/margins"] > 0).float()
        if isinstance(scores, PairScores) and scores.chosen_kl_B is not None:
            values["kl/chosen_per_token"] = scores.chosen_kl_B / scores.chosen_tokens_B.clamp(min=1)
        values["tokens"] = torch.tensor(float(micro_batch.batch.input_ids_RL.numel()))
        for key, value in values.items():
            summed = value.detach().double().sum().cpu() * micro_batch.weight
            sums[key] = sums[key] + summed if key in sums else summed

    @torch.no_grad()
    def _reference_point(self, inputs: StepInputs) -> Tensor | None:
        """KTO's z0: mean log-ratio of mismatched pairs over the whole step, not below 0 (arXiv 2402.01306, eq. 6)."""
        if "reference_point" not in self.loss.needs:
            return None
        total = count = 0.0
        for micro_batch in inputs.mismatched:
            batch = self.reference.attach_online(micro_batch.batch)
            ratios_B = pair_scores(batch, self.engine.score(batch)).chosen_logratios_B.double()
            total += float(ratios_B.sum()) * micro_batch.weight
            count += len(ratios_B) * micro_batch.weight
        total, count = self.engine.all_reduce_sum([total, count])
        return torch.tensor(max(0.0, total / max(1.0, count)))
