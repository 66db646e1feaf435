"""A tiny model, its tokenizer, templates and a few preferences: what the tests of the core run on."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from stepdpo.core.types import Preference
from stepdpo.data.templates import TextTemplate
from stepdpo.tinymath.tokenizer import build

CHAT = TextTemplate(
    name="chat", prompt="<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", between="<|im_end|>\n"
)
ALPACA = TextTemplate(name="alpaca", prompt="### Instruction:\n{question}\n\n### Response:", joint="\n")
"""Its joint forms a token with the colon before it, as in Qwen's tokenizers."""
DEEPSEEK = TextTemplate(name="deepseek", prompt="User: {question}\n\nAssistant:", joint=" ")
"""Its joint forms a token with the word after it."""
OPENING = "Let's think step by step."

PREFERENCES = (
    Preference(
        question="Tom has 3 pens and buys 4 more. He sells each for 2 coins. How many coins does he get?",
        prefix=f"{OPENING}\nStep 1: Tom has 3 + 4 = 7 pens.\nStep 2:",
        chosen=" He gets 7 * 2 = 14 coins.\nThe answer is: 14",
        rejected=" He gets 7 + 2 = 9 coins, which is all.\nThe answer is: 9",
        answer="14",
    ),
    Preference(
        question="Anna bakes 12 cookies and eats 5. She puts the rest into boxes of 7. How many boxes?",
        prefix=f"{OPENING}\nStep 1:",
        chosen=" She has 12 - 5 = 7 cookies.",
        chosen_rest="\nStep 2: She needs 7 / 7 = 1 box.\nThe answer is: 1",
        rejected=" She has 12 + 5 = 17 cookies.",
        rejected_rest="\nStep 2: She needs 17 / 7, which is about 3 boxes.\nThe answer is: 3",
        answer="1",
        confidence=0.75,
    ),
    Preference(
        question="What is 2 + 3?",
        prefix="",
        chosen=f"{OPENING}\nStep 1: 2 + 3 = 5.\nThe answer is: 5",
        rejected=f"{OPENING}\nStep 1: 2 + 3 = 6.\nThe answer is: 6",
        answer="5",
    ),
    Preference(
        question="Leo reads 10 pages a day. How many pages does he read in 3 weeks?",
        prefix=f"{OPENING}\nStep 1: A week has 7 days.\nStep 2: 3 weeks have 3 * 7 = 21 days.\nStep 3:",
        chosen=" He reads 10 * 21 = 210 pages.\nThe answer is: 210",
        rejected=" He reads 10 pages",
        rejected_rest=" and so on",
        answer="210",
    ),
    Preference(
        question="Zoe has 9 beads. She loses 4, then finds 1.",
        prefix=f"{OPENING}\nStep 1: 9 - 4 = 5 beads.\nStep 2:",
        chosen=" 5 + 1 = 6 beads.",
        chosen_rest="\nThe answer is: 6",
        rejected=" 9 + 1 = 10 beads.",
        rejected_rest="\nThe answer is: 10",
        answer="6",
        confidence=0.6,
    ),
)


@cache
def tokenizer() -> Any:
    """The miniature's tokenizer, built once."""
    return build()


def with_bos(prepends: bool) -> Any:
    """The same vocabulary with `<|im_start|>` declared the beginning-of-text token.

    `prepends`: the tokenizer itself puts it in front when asked for special tokens, as Llama's does.
    """
    from tokenizers.processors import TemplateProcessing

    backend = copy.deepcopy(tokenizer().backend_tokenizer)
    if prepends:
        start = backend.token_to_id("<|im_start|>")
        backend.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", start)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|pad|>"
    )


def model(attention: str, *, seed: int = 0, tied: bool = True, hidden: int = 32) -> Any:
    """A Qwen2 with two layers, grouped key-value heads, fp32 and random weights of some size."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer()),
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer().eos_token_id,
        pad_token_id=tokenizer().pad_token_id,
    )
    config._attn_implementation = attention
    return Qwen2ForCausalLM(config).train()


@torch.no_grad()
def perturb(module: torch.nn.Module, *, seed: int = 1, size: float = 0.02) -> None:
    """Move every trained parameter a little, always in the same way: to numbers that fp32 has, whatever its format."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if not parameter.requires_grad:
            continue
        moved = parameter.double() + size * torch.randn(parameter.shape, generator=generator).double()
        parameter.copy_(moved.float())


def save_model(folder: Path, tied: bool, hidden: int = 32) -> Path:
    """Random weights large enough that two steps differ in probability."""
    tokenizer = build()
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=hidden, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=2 * hidden, max_position_embeddings=512, tie_word_embeddings=tied,
        initializer_range=0.1,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
