"""Plain torch on one device: the twin that every other engine is tested against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from stepdpo.core.errors import UserError
from stepdpo.models.scorer import Scorer, Scores
from stepdpo.tokens.batch import TreeBatch
from stepdpo.training.engine.settings import (
    Build,
    Device,
    Dtype,
    decay_groups,
    frozen_names,
    head_weights,
    pick_device,
    pick_dtype,
    recompute_activations,
)
from stepdpo.training.optimizer import AdamW

STATE = "optimizer.pt"


@dataclass(frozen=True)
class Local:
    """One process, weights in fp32 (with autocast for bf16)."""

    dtype: Dtype = Dtype.auto
    gradient_checkpointing: bool = False
    device: Device = Device.auto

    @contextmanager
    def open(self, build: Build, optim: AdamW) -> Iterator[LocalEngine]:
        scorer = build(torch.float32, lambda parameters: nullcontext())
        yield LocalEngine(self, scorer, optim)


class LocalEngine:
    """The engine of one process: weights and Adam's moments whole on one device."""

    rank, local_rank, world_size = 0, 0, 1

    def __init__(self, spec: Local, scorer: Scorer, optim: AdamW) -> None:
        self.device = pick_device(spec.device)
        self.scorer = scorer.to(self.device).train()
        self.autocast = pick_dtype(spec.dtype, self.device) is Dtype.bfloat16
        self.dtype = "bfloat16 by autocast" if self.autocast else "float32"
        """Number format that scores are computed in."""
        self.clip = optim.clip
        self.model = scorer.model
        if spec.gradient_checkpointing:
            recompute_activations(scorer.model)
        self.optimizer = torch.optim.AdamW(
            decay_groups(scorer, optim.weight_decay),
            lr=optim.lr,
            betas=(optim.beta1, optim.beta2),
            eps=optim.eps,
            fused=self.device.type == "cuda",
        )

    def score(self, batch: TreeBatch) -> Scores:
        """Scorer.forward on this process's device."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            scores: Scores = self.scorer(batch.to(self.device))
        return scores

    def build_reference(self, build: Build) -> Callable[[TreeBatch], Scores]:
        """A second model that is only scored, as `score` does it."""
        scorer = build(torch.float32, lambda parameters: nullcontext()).to(self.device).requires_grad_(False)

        def score(batch: TreeBatch) -> Scores:
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                scores: Scores = scorer(batch.to(self.device))
            return scores

        return score

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of this process's share of the loss (already divided by the global number of pairs)."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, lr: float) -> float:
        """Clip, update, clear the gradient; returns the gradient's norm before clipping. Skips a non-finite one."""
        # The norm is wanted even without clipping, and a limit of infinity clips nothing.
        norm = torch.nn.utils.clip_grad_norm_(self.scorer.parameters(), self.clip or float("inf"))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if torch.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return float(norm)

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Sum over processes."""
        return list(values)

    def barrier(self) -> None:
        """Wait for every process."""

    def weights(self) -> dict[str, Tensor]:
        """The model's weights on the CPU."""
        return {k: v.detach().cpu() for k, v in self.scorer.model.state_dict().items()}

    def value_head(self) -> dict[str, Tensor]:
        """The value head's weights on the CPU; none where there is no head."""
        return head_weights(self.scorer, lambda parameters: nullcontext())

    def save_state(self, folder: Path) -> None:
        """What resuming needs: fp32 weights (those that are trained) and the optimiser's state."""
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"model": self._trained(), "optimizer": self.optimizer.state_dict()}, folder / STATE)

    def load_state(self, folder: Path) -> None:
        """Go on from what `save_state` wrote; RuntimeError where a trained weight is missing.

        Raises UserError for a file that holds more than numbers: opened otherwise, it could run code.
        """
        try:
            state = torch.load(folder / STATE, map_location=self.device, weights_only=True)
        except UnpicklingError as error:  # torch's own words advise to open it without looking
            raise UserError(f"{folder / STATE}: holds more than tensors, or is damaged; it is not opened") from error
        missing = set(self._trained()) - set(state["model"])
        if missing:
            raise RuntimeError(f"{folder / STATE}: lacks {min(missing)}")
        self.scorer.load_state_dict(state["model"], strict=False)  # what is frozen is as it was loaded
        self.optimizer.load_state_dict(state["optimizer"])

    def _trained(self) -> dict[str, Tensor]:
        frozen = frozen_names(self.scorer)
        return {name: value for name, value in self.scorer.state_dict().items() if name not in frozen}
