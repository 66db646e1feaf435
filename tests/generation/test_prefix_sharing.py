"""Many responses to one prompt read its keys once, and come out as if each had read its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_transformers import PROMPTS, tiny
from torch.nn.functional import scaled_dot_product_attention

from stepdpo.core.types import Sampling
from stepdpo.generation import decode_loop as loop
from stepdpo.generation.prefix_sharing import NAME, SharedPrefix, attend, register
from stepdpo.generation.transformers import LocalSampler, TransformersSampler
from stepdpo.models.load import Fresh

P, N, GROUPS, HEADS, SIZE, WIDTH, OWN = 3, 4, 2, 6, 8, 5, 3


@pytest.mark.parametrize("places", [range(12), [0, 3, 5, 11], [8, 9]])
def test_it_is_attention_over_the_prompt_and_what_was_written(places: Any) -> None:
    """The twin lays prompt and own keys of every row one after another, repeated for the heads that share them."""
    torch.manual_seed(0)
    place_R = torch.tensor(list(places))
    keys, values = torch.randn(2, P, GROUPS, WIDTH, SIZE)
    lengths = torch.tensor([5, 2, 4])
    mask_PW = torch.arange(WIDTH) >= (WIDTH - lengths)[:, None]
    hidden = torch.zeros(P, 1, WIDTH).masked_fill(~mask_PW[:, None], float("-inf"))
    shared = SharedPrefix([(keys, values)], hidden, N, torch.arange(P * N))
    shared.keep(place_R)
    assert len(shared.layers[0][0]) == len({int(place) // N for place in places})
    rows = len(place_R)
    query, own_keys, own_values = (
        torch.randn(rows, heads, length, SIZE) for heads, length in ((HEADS, 1), (GROUPS, OWN), (GROUPS, OWN))
    )
    found = attend(query * SIZE**-0.5, own_keys, own_values, shared, 0)
    prompt_R = place_R // N
    all_keys, all_values = (
        torch.cat([ours[prompt_R], own], 2).repeat_interleave(HEADS // GROUPS, 1)
        for ours, own in ((keys, own_keys), (values, own_values))
    )
    mask = torch.cat([mask_PW[prompt_R], torch.ones(rows, OWN).bool()], 1)[:, None, None]
    expected = scaled_dot_product_attention(query, all_keys, all_values, attn_mask=mask)
    assert torch.allclose(found, expected.transpose(1, 2), atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"llama": True}, {"num_key_value_heads": 4}])
@pytest.mark.parametrize("budget", [100_000, 1500])
def test_the_same_responses_as_without_sharing(changes: dict[str, Any], budget: int) -> None:
    """In double precision, as one flipped token of a random model changes all that follow it."""
    tokenizer = Fresh().tokenizer()
    params = Sampling(n=5, temperature=1.0, max_tokens=40, seed=2)
    plain, sharing = (
        LocalSampler(tiny(tokenizer, attn_implementation=name, **changes).double(), tokenizer, budget).sample(
            PROMPTS, params
        )
        for name in ("sdpa", register())
    )
    assert plain == sharing
    assert len({c.tokens for some in sharing for c in some}) > 5


def test_rows_that_end_at_their_first_token() -> None:
    """They leave the batch before anything but the shared prompts is in the cache."""
    tokenizer = Fresh().tokenizer()
    prompts = tokenizer(PROMPTS)["input_ids"]
    params = Sampling(n=3, temperature=1.0, max_tokens=9)
    ends = loop.StopConditions((), (9, *[1] * (len(prompts) - 1)))
    uniforms = np.random.default_rng(0).random((3 * len(prompts), 9), dtype=np.float32)
    plain, sharing = (
        loop.generate(tiny(tokenizer, attn_implementation=name).double(), prompts, params, ends, uniforms)
        for name in ("sdpa", register())
    )
    assert [row.tokens for row in plain] == [row.tokens for row in sharing]
    assert [len(row.tokens) for row in sharing] == [9] * 3 + [1] * (3 * len(prompts) - 3)


def test_layers_that_forget_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sliding window counts positions of one row: prompt and response lie together as before."""
    tokenizer = Fresh().tokenizer()
    params = Sampling(n=3, temperature=1.0, max_tokens=30)
    window = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
    monkeypatch.setattr(loop, "share", None)
    plain, other = (
        LocalSampler(tiny(tokenizer, attn_implementation=name, **window), tokenizer, 100_000).sample(PROMPTS, params)
        for name in ("sdpa", register())
    )
    assert plain == other


def test_a_prompt_is_read_once_for_all_its_responses() -> None:
    """The model computes every token of the prompts once, and then one token a step of every row still written."""
    tokenizer = Fresh().tokenizer()
    model = tiny(tokenizer, attn_implementation=register())
    read: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, options: read.append(options["input_ids"].numel()), with_kwargs=True
    )
    params = Sampling(n=6, temperature=1.0, max_tokens=20)
    found = LocalSampler(model, tokenizer, 100_000).sample(PROMPTS, params)
    longest = max(len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) for prompt in PROMPTS)
    assert read[0] == longest * len(PROMPTS)
    assert read[1] == 6 * len(PROMPTS)
    written = sum(c.tokens for some in found for c in some)
    assert sum(read[1:]) <= 1.2 * written


def test_the_sampler_opens_models_with_it() -> None:
    with TransformersSampler(device="cpu").open(Fresh(hidden_size=32, layers=1, intermediate_size=32)) as sampler:
        assert sampler.model.config._attn_implementation == NAME
