"""Model shapes, and models of those shapes built straight from a config: random weights, nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

SEED = 0
MOVED = 1e-3
"""Standard deviation of what moves a policy away from its reference, so that no loss is log 2 and no KL is 0."""


@dataclass(frozen=True)
class Shape:
    """A Qwen2 architecture."""

    name: str
    vocab: int
    hidden: int = 512
    layers: int = 8
    heads: int = 8
    kv_heads: int = 2
    intermediate: int = 1408
    tied: bool = False

    @property
    def backbone_weights(self) -> int:
        """Weights a token is multiplied with before the head: projections of attention and MLP, all layers."""
        kv = self.hidden // self.heads * self.kv_heads
        return self.layers * (
            2 * self.hidden * self.hidden + 2 * self.hidden * kv + 3 * self.hidden * self.intermediate
        )


BENCH_32K = Shape("bench-32k", vocab=32_000)
BENCH_152K = Shape("bench-152k", vocab=152_064)
QWEN2_HALF_B = Shape("Qwen2-0.5B", 151_936, 896, 24, 14, 2, 4864, tied=True)
QWEN2_1_5B = Shape("Qwen2-1.5B", 151_936, 1536, 28, 12, 2, 8960, tied=True)
QWEN2_7B = Shape("Qwen2-7B", 152_064, 3584, 28, 28, 4, 18_944)


def build(shape: Shape, attention: str = "sdpa", dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """A model of this shape; the same weights every time, whatever the attention."""
    config = Qwen2Config(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=4096,
        tie_word_embeddings=shape.tied,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=0,
    )
    config._attn_implementation = attention
    torch.manual_seed(SEED)  # the model draws its weights in one order, whatever its attention
    before = torch.get_default_dtype()
    # Built in its own format and place: a large one need not fit into the CPU's memory in fp32 first.
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model: Any = Qwen2ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model.train()


@torch.no_grad()
def move(model: Any) -> None:
    """The policy after some training, the same on every side: a little noise from a fixed seed on every weight."""
    for number, weight in enumerate(model.parameters()):
        generator = torch.Generator(weight.device).manual_seed(SEED + 1 + number)
        noise = torch.randn(weight.shape, generator=generator, device=weight.device, dtype=torch.float32)
        weight.add_((MOVED * noise).to(weight.dtype))
