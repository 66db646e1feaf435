"""Supervised fine-tuning on the chosen side: the control every preference method should be held against."""

from __future__ import annotations

from dataclasses import dataclass

from stepdpo.tokens.pair_scores import LossOutput, PairScores


@dataclass(frozen=True)
class SFT:
    """loss = -chosen_logp / tokens, averaged over examples; the rejected side is not computed."""

    per_token: bool = True
    """Divide by the number of scored tokens; false sums them, as preference losses do."""

    keep_wrong: bool = False
    """Learn what the data call wrong (a `label` below 1/2) too."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.keep_wrong else frozenset({"right"})

    def __call__(self, scores: PairScores) -> LossOutput:
        tokens_B = scores.chosen_tokens_B.clamp(min=1)  # without a scored token 0, and not 0 / 0
        nll_B = -scores.chosen_logps_B
        return LossOutput(
            losses_B=nll_B / tokens_B if self.per_token else nll_B,
            chosen_rewards_B=scores.chosen_logps_B.detach(),
            rejected_rewards_B=scores.rejected_logps_B.detach(),
            metrics_B={"nll_per_token": (nll_B / tokens_B).detach()},
        )
