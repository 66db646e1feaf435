"""One process's part of a DeepSpeed engine; with `process_group` the only place that knows DeepSpeed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepdpo.models.scorer import Scores
from stepdpo.tokens.batch import TreeBatch
from stepdpo.training.engine.settings import (
    Build,
    Dtype,
    decay_groups,
    frozen_names,
    head_weights,
    recompute_activations,
)
from stepdpo.training.optimizer import AdamW

TAG = "zero"


def at(node: Mapping[str, Any], key: str) -> Any:
    """What stands at a dotted key; None for nothing."""
    value: Any = node
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def load_whole_again() -> None:
    """A configuration of stage 3 makes transformers shard what it loads, and may outlive a closed engine."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]


class ZeroEngine:
    """One process's part of a DeepSpeed engine; every process calls its methods in the same order."""

    def __init__(
        self,
        stage: int,
        gradient_checkpointing: bool,
        kind: Dtype,
        config: dict[str, Any],
        build: Build,
        optim: AdamW,
        device: torch.device,
    ) -> None:
        """`config` is DeepSpeed's own configuration, of which `stage` and `kind` (its number format) are a part."""
        import deepspeed  # takes seconds, so only where it is used

        self.stage, self.device = stage, device
        self.dtype = kind.value
        """Number format that scores are computed in."""
        self.config = config
        self.sharded = stage == 3
        if self.sharded:
            from transformers.integrations.deepspeed import HfDeepSpeedConfig

            self.load_sharded = HfDeepSpeedConfig(config)  # type: ignore[no-untyped-call]  # kept alive: from_pretrained shards while it exists
        self.parameter_dtype = torch.bfloat16 if kind is Dtype.bfloat16 else torch.float32
        scorer = build(self.parameter_dtype, self.gather).to(device if not self.sharded else None)
        self.frozen = bool(frozen_names(scorer))
        """Whether a part of the model is not trained; it is then no part of a checkpoint's state."""
        if gradient_checkpointing:
            recompute_activations(scorer.model)
        optimizer = torch.optim.AdamW(
            decay_groups(scorer, optim.weight_decay),
            lr=0.0,  # set before every update; DeepSpeed may make one of its own while it starts
            betas=(optim.beta1, optim.beta2),
            eps=optim.eps,
            fused=device.type == "cuda" and not at(config, "zero_optimization.offload_optimizer"),
        )
        self.engine, *_ = deepspeed.initialize(model=scorer, optimizer=optimizer, config=config)
        if stage == 0 and kind is Dtype.bfloat16:
            self.engine.optimizer.state.clear()  # that one would count as the first in Adam's bias correction
        self.engine.train()
        self.model = self.engine.module.model
        self.rank, self.world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))

    def gather(self, parameters: list[torch.nn.Parameter]) -> Any:
        """Whole parameters inside the block (on every process)."""
        import deepspeed

        return deepspeed.zero.GatheredParameters(parameters) if self.sharded else nullcontext()

    def score(self, batch: TreeBatch) -> Scores:
        """Scorer.forward on this process's device; every process must call it equally often."""
        scores: Scores = self.engine(batch.to(self.device))
        return scores

    def build_reference(self, build: Build) -> Callable[[TreeBatch], Scores]:
        """A second model that is only scored, as `score` does it; at stage 3 it is sharded too."""
        import deepspeed

        scorer = build(self.parameter_dtype, self.gather).requires_grad_(False)
        if self.sharded:
            scorer, *_ = deepspeed.initialize(model=scorer, config=self.config)
        else:
            scorer = scorer.to(self.device)

        def score(batch: TreeBatch) -> Scores:
            with torch.no_grad():
                scores: Scores = scorer(batch.to(self.device))
            return scores

        return score

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of this process's share of the loss (already divided by the global number of pairs).

        DeepSpeed averages over processes where we sum, hence the factor.
        """
        # By hand, as the number of micro-batches varies from step to step; at the boundary gradients are reduced.
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * self.world_size, scale_wrt_gas=False)
        if not last:
            self.engine.step()  # counts the micro-batch and learns nothing; the step itself is `step`

    def step(self, lr: float) -> float:
        """Clip, update, clear the gradient; returns the gradient's norm before clipping."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        plain = self._plain_norm() if self.stage == 0 else None  # before the step clears the gradient
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return float(norm if norm is not None else plain or 0.0)

    def _plain_norm(self) -> float:
        """Norm of the averaged gradient where DeepSpeed keeps none (stage 0)."""
        grads = [p.grad for p in self.engine.module.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(grads)) if grads else 0.0

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Sum over processes."""
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(summed)
        sums: list[float] = summed.tolist()
        return sums

    def barrier(self) -> None:
        """Wait for every process."""
        torch.distributed.barrier()

    def weights(self) -> dict[str, Tensor]:
        """The model's weights on the CPU of process 0 (empty elsewhere), one parameter made whole at a time."""
        model = self.model
        if not self.sharded:
            return {k: v.detach().cpu() for k, v in model.state_dict().items()} if self.rank == 0 else {}
        gathered: dict[str, Tensor] = {}
        # One at a time: a whole 70B model would not fit beside the shards. Every process takes part in each.
        for name, parameter in model.named_parameters():
            with self.gather([parameter]):
                if self.rank == 0:
                    gathered[name] = parameter.detach().cpu().clone()
        if self.rank == 0:
            gathered.update({k: v.detach().cpu() for k, v in model.named_buffers() if k in model.state_dict()})
        return gathered

    def value_head(self) -> dict[str, Tensor]:
        """The value head's weights in fp32; none where there is no head."""
        return head_weights(self.engine.module, self.gather)

    def save_state(self, folder: Path) -> None:
        """What resuming needs, in DeepSpeed's format; called by every process."""
        # `latest` would name the checkpoint before every process has written its part; our manifest names whole ones.
        self.engine.save_checkpoint(str(folder), tag=TAG, save_latest=False, exclude_frozen_parameters=self.frozen)

    def load_state(self, folder: Path) -> None:
        """Go on from what `save_state` wrote; called by every process."""
        self.engine.load_checkpoint(
            str(folder), tag=TAG, load_lr_scheduler_states=False, load_module_strict=not self.frozen
        )
