"""The decoding loop: a batch of token lists in, the tokens each one goes on with out.

Written for large batches of short responses: rows that have ended leave the batch, the cache grows in place, and a
prompt with several responses is read once. On CPU this is several times faster than `generate`, which keeps
computing ended rows until the longest response is done (docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stepdpo.core.types import Sampling
from stepdpo.generation.kv_cache import growing_cache
from stepdpo.generation.prefix_sharing import SharedPrefix, can_share, share

STOP_EVERY = 8
"""Steps between two searches for stop strings: a search decodes text, on the CPU, while the device waits. What is
written after a stop string is cut off later."""
TOP_P_CANDIDATES = 128
"""How many of the likeliest tokens top-p looks at first: a whole vocabulary is slow to sort."""
CROWDED = 0.9
"""Ended rows are taken out of the batch when fewer than this share of its rows are still being written: to take them
out copies the KV cache, to leave them in computes tokens for nothing."""


Watch = Callable[[Sequence[int], Sequence[int]], None]
"""Hears every token as it is written: (rows of the output, the token of each). What it raises ends the writing."""


@dataclass(frozen=True, slots=True)
class StopConditions:
    """What ends a response."""

    eos: tuple[int, ...]
    rooms: tuple[int, ...]
    """How many tokens may be written after each prompt, at least 1."""
    stopped: Callable[[Sequence[int]], bool] | None = None
    """Whether new tokens contain a stop string; None when there are none."""


@dataclass(frozen=True, slots=True)
class GeneratedTokens:
    """What one response is made of."""

    tokens: list[int]
    """The end-of-text token included, and what was written after a stop string before it was noticed."""
    logps: list[float]
    """Nats of each token under the model itself (temperature 1, no top-p); empty where nobody asked."""


@dataclass(slots=True)
class _Rows:
    """Rows still in the batch; `row_R` says which row of the output each one is."""

    row_R: Tensor
    token_R: Tensor
    position_R: Tensor
    room_R: Tensor
    mask_RL: Tensor
    ended_R: Tensor
    shared: SharedPrefix | None = None
    """The prompts, where the cache holds only what was written after them."""

    def keep(self, index_K: Tensor) -> None:
        for name in ("row_R", "token_R", "position_R", "room_R", "mask_RL", "ended_R"):
            setattr(self, name, getattr(self, name)[index_K])
        if self.shared:
            self.shared.keep(index_K)


def sample_token(logits_RV: Tensor, uniform_R: Tensor | None, params: Sampling) -> Tensor:
    """The next token of each row: the likeliest, or by inverse transform of one uniform number in [0, 1).

    Top-p keeps the smallest set of likeliest tokens whose probabilities sum to at least `top_p`.
    """
    if params.temperature == 0 or uniform_R is None:
        return logits_RV.argmax(-1)
    probs_RV = torch.softmax(logits_RV.float() / params.temperature, -1)
    order_RV = None
    if params.top_p < 1:
        whole_RV = probs_RV
        probs_RV, order_RV = whole_RV.topk(min(TOP_P_CANDIDATES, whole_RV.shape[-1]))
        # Some row is so flat that its TOP_P_CANDIDATES likeliest do not reach top_p: then all are sorted.
        if bool((probs_RV.sum(-1) < params.top_p).any()):
            probs_RV, order_RV = whole_RV.sort(dim=-1, descending=True, stable=True)
        # What stands before a token must be short of top_p, so that the token that crosses it is still in the set.
        before_RV = probs_RV.cumsum(-1) - probs_RV
        probs_RV = probs_RV.masked_fill(before_RV >= params.top_p, 0.0)
    # In fp64: a sum over 150,000 words in fp32 ends beside 1, and a token's interval may vanish in its rounding. Scaled
    # by the sum itself, so that the target always falls within; `right` never picks a token of probability 0.
    cumulative_RV = probs_RV.double().cumsum(-1)
    target_R1 = uniform_R[:, None].double() * cumulative_RV[:, -1:]
    pick_R1 = torch.searchsorted(cumulative_RV, target_R1, right=True)
    return (pick_R1 if order_RV is None else order_RV.gather(-1, pick_R1))[:, 0]


def chosen_logps(logits_RV: Tensor, token_R: Tensor) -> Tensor:
    """Log-probability of each row's token at temperature 1, in fp32."""
    wide_RV = logits_RV.float()
    return wide_RV.gather(-1, token_R[:, None])[:, 0] - wide_RV.logsumexp(-1)


@torch.inference_mode()
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    params: Sampling,
    ends: StopConditions,
    uniforms: npt.NDArray[np.float32] | None,
    advance: Callable[[int], None] = lambda count: None,
    watch: Watch | None = None,
) -> list[GeneratedTokens]:
    """`params.n` responses a prompt, prompt by prompt.

    `uniforms[row, step]` are the random numbers; `advance` hears how many rows have just left the batch.
    """
    device, width = model.device, max(map(len, prompts))
    steps = max(ends.rooms)
    rows, cache, logits_RV = _prefill(model, prompts, params.n, ends, width + steps)
    uniform_RT = None if uniforms is None else torch.from_numpy(uniforms).to(device)
    eos_E = torch.tensor(ends.eos, device=device, dtype=torch.long)
    out_RT = torch.zeros(len(rows.row_R), steps, dtype=torch.long, device=device)
    logp_RT = torch.zeros(out_RT.shape if params.logps else (len(out_RT), 0), device=device)
    lengths_R = torch.zeros(len(rows.row_R), dtype=torch.long, device=device)
    for step in range(steps):
        uniform_R = None if uniform_RT is None else uniform_RT[rows.row_R, step]
        rows.token_R = sample_token(logits_RV, uniform_R, params)
        out_RT[rows.row_R, step] = rows.token_R
        if params.logps:
            logp_RT[rows.row_R, step] = chosen_logps(logits_RV, rows.token_R)
        # Ended rows may stay a while (CROWDED), and what they go on writing is not counted.
        lengths_R[rows.row_R[~rows.ended_R]] = step + 1
        if watch:  # which waits for the device at every token: for one person's question, not for a benchmark's
            watch(rows.row_R[~rows.ended_R].tolist(), rows.token_R[~rows.ended_R].tolist())
        rows.ended_R |= torch.isin(rows.token_R, eos_E) | (rows.room_R <= step + 1)
        if ends.stopped and step % STOP_EVERY == STOP_EVERY - 1:
            _search(rows, out_RT[:, : step + 1], ends.stopped)
        left = len(rows.ended_R) - int(rows.ended_R.sum())
        if not left:
            break
        if left < CROWDED * len(rows.ended_R):
            advance(len(rows.ended_R) - left)
            keep_K = (~rows.ended_R).nonzero()[:, 0]
            rows.keep(keep_K)
            cache.batch_select_indices(keep_K)
        logits_RV = _forward(model, rows, cache, width + step + 1)
    advance(len(rows.ended_R))
    # One copy to the CPU at the end, and not one a token.
    written = zip(out_RT.tolist(), logp_RT.tolist(), lengths_R.tolist(), strict=True)
    return [GeneratedTokens(tokens[:length], logps[:length]) for tokens, logps, length in written]


def _prefill(
    model: Any, prompts: Sequence[Sequence[int]], n: int, ends: StopConditions, longest: int
) -> tuple[_Rows, Any, Tensor]:
    """Read the prompts, padded on the left, once each; then every prompt stands there n times."""
    # On the left, so that every row's next token has the same place in the cache, and its logits are the last ones.
    width = max(map(len, prompts))
    lengths_R = torch.tensor([len(ids) for ids in prompts])
    ids_RL = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in prompts])
    # Made for the longest response at once; a step takes as many of its columns as there are tokens by then.
    mask_RL = torch.arange(longest) >= (width - lengths_R)[:, None]
    position_RL = (torch.arange(width) - (width - lengths_R)[:, None]).clamp(min=0)
    cache = growing_cache(model.config)
    logits_RV = model(
        input_ids=ids_RL.to(model.device),
        attention_mask=mask_RL[:, :width].to(model.device),
        position_ids=position_RL.to(model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    room_R = torch.tensor(ends.rooms)
    shared = share(cache, mask_RL[:, :width].to(model.device), n) if n > 1 and can_share(model, cache) else None
    if n > 1:
        if not shared:
            cache.batch_repeat_interleave(n)
        logits_RV, mask_RL, lengths_R, room_R = (
            x.repeat_interleave(n, dim=0) for x in (logits_RV, mask_RL, lengths_R, room_R)
        )
    many = len(room_R)
    tensors = (torch.arange(many), torch.zeros(many).long(), lengths_R, room_R, mask_RL, torch.zeros(many).bool())
    row_R, token_R, lengths_R, room_R, mask_RL, ended_R = (x.to(model.device) for x in tensors)
    return _Rows(row_R, token_R, lengths_R, room_R, mask_RL, ended_R, shared), cache, logits_RV


def _forward(model: Any, rows: _Rows, cache: Any, seen: int) -> Tensor:
    """Logits after one more token of each row; `seen` tokens are in sight, padding included."""
    logits_RV: Tensor = model(
        input_ids=rows.token_R[:, None],
        # With shared prompts padding is hidden by SharedPrefix, and the cache holds written tokens alone.
        attention_mask=None if rows.shared else rows.mask_RL[:, :seen],
        position_ids=rows.position_R[:, None],
        past_key_values=cache,
        use_cache=True,
        **({"shared": rows.shared} if rows.shared else {}),
    ).logits[:, -1]
    rows.position_R += 1
    return logits_RV


def _search(rows: _Rows, out_RT: Tensor, stopped: Callable[[Sequence[int]], bool]) -> None:
    """Mark the rows that have written a stop string."""
    written = out_RT[rows.row_R].tolist()
    for index, ended in enumerate(rows.ended_R.tolist()):
        if not ended and stopped(written[index]):
            rows.ended_R[index] = True
