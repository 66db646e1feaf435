"""All settings of one training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from stepdpo.core.protocols import Level, Template, TrackerSpec
from stepdpo.core.ranges import at_least
from stepdpo.data.validation import DatasetSpec
from stepdpo.models.attention.registry import Attention
from stepdpo.models.load import ModelSpec, Pretrained
from stepdpo.models.logprobs import HeadMemory
from stepdpo.models.lora import Adapter, NoAdapter, base_of
from stepdpo.models.save import SaveDtype
from stepdpo.tokens.batch_sampler import BatchSize
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.pair_scores import Loss
from stepdpo.tokens.step_scores import StepLoss
from stepdpo.training.engine.local import Local
from stepdpo.training.engine.settings import EngineSpec
from stepdpo.training.guard import Drift, Guard
from stepdpo.training.optimizer import AdamW
from stepdpo.training.reference import ReferenceMode


@dataclass(frozen=True)
class Training:
    """All settings of one training run; the parts are built from their own config groups."""

    algo: Loss | StepLoss
    level: Level
    template: Template
    model: ModelSpec
    dataset: DatasetSpec
    optim: AdamW
    engine: EngineSpec
    track: TrackerSpec
    adapter: Adapter = field(default_factory=NoAdapter)
    guard: Guard = field(default_factory=Drift)
    reference: ReferenceMode = ReferenceMode.cache
    reference_model: ModelSpec | str | None = None
    """What the policy is held against: a folder or hub id, or a part of the group model; null: the policy's start."""
    head: HeadMemory = HeadMemory.auto
    batch: BatchSize = field(default_factory=BatchSize)
    lengths: Lengths = field(default_factory=Lengths)
    attention: Attention = Attention.auto
    epochs: int = 1
    max_steps: int | None = None
    """Stop after this many updates, whatever the epochs."""
    seed: int = 0
    log_every: int = 10
    eval_every: int = 50
    """Updates between evaluations on the held-out pairs; 0 for one at the start and one at the end."""
    save_every: int = 100
    """Updates between checkpoints; 0 for none."""
    keep: int = 2
    """Checkpoints to keep."""
    save_dtype: SaveDtype = SaveDtype.trained
    """Number format of the weights that checkpoints and the finished model hold."""

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, max_steps=self.max_steps, log_every=self.log_every, keep=self.keep)
        at_least(0, seed=self.seed, eval_every=self.eval_every, save_every=self.save_every)
        if self.reference is ReferenceMode.adapter_off and isinstance(self.adapter, NoAdapter):
            raise ValueError("reference=adapter_off needs an adapter to switch off: adapter=lora")
        if self.reference is ReferenceMode.adapter_off and self.reference_model is not None:
            raise ValueError("without its adapter the policy is its own start: reference_model needs cache or online")
        if self.guard.sample and not isinstance(self.engine, Local):
            raise ValueError("guard.sample needs engine=local, where one process has the whole policy")
        if base_of(self.adapter) is not None and getattr(self.engine, "stage", 0) == 3:
            raise ValueError(
                "adapter=qlora cannot be trained at ZeRO 3, which splits numbers and not the codes of a quantised "
                "matrix with its scales: engine.stage=2, where each process holds the whole base in 4 bits"
            )

    @property
    def reference_spec(self) -> ModelSpec | None:
        """The reference where it is another model than the policy's start."""
        named = self.reference_model
        return Pretrained(path=named) if isinstance(named, str) else named
