"""How a run's policy and reference become modules that score token trees, in the number format of an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stepdpo.core.errors import UserError
from stepdpo.models import start_adapter, value_head
from stepdpo.models.adapter_layers import hold_start
from stepdpo.models.compatibility import refuse_sliding_window
from stepdpo.models.fingerprint import fingerprint
from stepdpo.models.integrity import refuse_unknown_tokens
from stepdpo.models.load import ModelSpec
from stepdpo.models.logprobs import HeadMemory
from stepdpo.models.lora import Adapter, NoAdapter, base_of, start_of
from stepdpo.models.quantise import Merge, told
from stepdpo.models.scorer import Gather, Scorer, head_of, logit_form
from stepdpo.tokens.step_scores import Trunk, ValueHeadSpec


@dataclass(frozen=True)
class ScorerSpec:
    """The models of one run and how their scores are computed; nothing is loaded yet."""

    policy: ModelSpec
    reference: ModelSpec | None
    """Where it is another model than the one that the policy is when the run starts."""
    adapter: Adapter
    attention: str
    """Name of the backend, which is set when a model is built and never changed."""
    max_length: int
    """Tokens of the longest sequence."""
    head_memory: HeadMemory
    with_kl: bool
    """Whether the loss wants the KL, for which the reference's output head is kept beside the policy."""
    computed: torch.dtype
    """Number format that the engine computes in; a model whose frozen matrices are quantised is loaded in it."""
    device: torch.device
    """Where a model is quantised: on a CPU that takes minutes for a billion numbers."""
    with_collision: bool = False
    """Whether the loss wants the policy's collision probabilities."""
    value_head: ValueHeadSpec | None = None
    """The value head that is trained with the policy."""
    holds_start: bool = False
    """Whether the adapter that the policy starts from is kept beside it, to be switched on in its place."""

    def tokenizer(self) -> Any:
        """The policy's. UserError where the reference has other tokens: its scores would be about other texts."""
        tokenizer = self.policy.tokenizer()
        if self.reference is not None and self.reference.tokenizer().get_vocab() != tokenizer.get_vocab():
            raise UserError(f"reference_model: {self.reference.source!r} has other tokens than the model")
        return tokenizer

    def reference_key(self) -> dict[str, Any]:
        """What the reference's scores depend on besides the tokens and the engine."""
        key: dict[str, Any] = {"weights": (self.reference or self.policy).fingerprint(), "attention": self.attention}
        base = base_of(self.adapter)
        if self.reference is None:
            key |= self._start_key()
        return key | ({"base": dict(base.key(self.computed))} if base else {})

    def base_told(self) -> dict[str, Any]:
        """What is kept with an adapter of the base it was trained beside; nothing where all weights are trained."""
        if isinstance(self.adapter, NoAdapter):
            return {}
        base, weights = base_of(self.adapter), self.policy.fingerprint()
        return told(base.key(self.computed), weights) if base else {"weights": weights}

    def not_in_state(self) -> dict[str, str]:
        """What a resumed run loads again, as it must be unchanged: setting -> what tells its files from others."""
        if isinstance(self.adapter, NoAdapter):
            return {}
        return {"model": self.policy.fingerprint(), **self._start_key("adapter.start")}

    def start_doubt(self) -> str:
        """What is odd about the base that the policy's start is put beside, or "". UserError for what cannot be."""
        start = start_of(self.adapter)
        return start_adapter.doubt(start, self.policy.folder(), self.base_told()) if start else ""

    def merged_into(self) -> Callable[[], Mapping[str, torch.Tensor]] | None:
        """The weights that a finished adapter is added to, where they are not those it was trained beside."""
        base = base_of(self.adapter)
        if base is None or base.merge is Merge.dequantised:
            return None
        return lambda: self.policy.model(self.attention, self.computed).state_dict()

    def build_policy(self, dtype: torch.dtype, gather: Gather) -> Scorer:
        """The model that is trained, its adapter attached."""
        model = self._load(self.policy, dtype)
        head_VH = (
            self._other_head(self.reference, model, self._dtype(dtype), gather)
            if self.reference and self.with_kl
            else None
        )
        adapted = self.adapter.attach(model)
        if self.holds_start:
            hold_start(adapted)
        head = value_head.make(self.value_head, model, self.policy.folder()) if self.value_head else None
        if self.value_head and self.value_head.trunk is Trunk.frozen:
            adapted.requires_grad_(False)
        return Scorer(adapted, self.with_kl, gather, self.head_memory, head_VH, self.with_collision, head)

    def build_reference(self, dtype: torch.dtype, gather: Gather) -> Scorer:
        """The model that the policy is held against, as a model of its own."""
        model = self._load(self.reference or self.policy, dtype)
        if self.reference is None and start_of(self.adapter):
            model = self.adapter.attach(model)
        return Scorer(model, False, gather, self.head_memory)

    def _start_key(self, name: str = "start") -> dict[str, str]:
        start = start_of(self.adapter)
        return {name: fingerprint(Path(start))} if start else {}

    def _load(self, spec: ModelSpec, dtype: torch.dtype) -> Any:
        model = spec.model(self.attention, self._dtype(dtype))
        refuse_sliding_window(model.config, self.max_length)
        refuse_unknown_tokens(spec.tokenizer(), model, spec.source)
        if base := base_of(self.adapter):
            base.quantise(model, self.device)
        return model

    def _dtype(self, trained: torch.dtype) -> torch.dtype:
        """Beside a quantised base nothing but adapters needs more bits than are computed with."""
        return self.computed if base_of(self.adapter) else trained

    def _other_head(self, reference: ModelSpec, model: Any, dtype: torch.dtype, gather: Gather) -> torch.Tensor:
        """Another model's head; UserError where the policy's logits are not made as its are."""
        other = reference.model(self.attention, dtype)
        if logit_form(other.config) != logit_form(model.config):
            raise UserError("reference_model: its logits are scaled or capped otherwise than the model's, so no KL")
        return head_of(other, gather)
