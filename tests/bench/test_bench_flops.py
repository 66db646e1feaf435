"""Counting: against PyTorch's own counter, and against formulas written out here."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from support import small
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks import flops, ours
from benchmarks.cases import SIDES
from stepdpo.tokens.token_tree import TokenSequence, build_tree

aten = torch.ops.aten
N, H, V = small.SHAPE.backbone_weights, small.SHAPE.hidden, small.SHAPE.vocab


def flash(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def flash_backward(gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


THEIRS = {
    aten._scaled_dot_product_flash_attention_for_cpu: flash,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flash_backward,
}


def attention(rows: int, length: int) -> int:
    """Forward, every (query, key) of a padded row: two products of the hidden size."""
    return small.SHAPE.layers * rows * length * length * 4 * H


def test_weights_of_the_trunk() -> None:
    """Two layers: query and output 32 x 32, key and value 32 x 16, three of 32 x 48."""
    assert N == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)


def test_counts_what_pytorch_counts() -> None:
    """With padding every call has a mask, so that both take whole rectangles for attention."""
    side = SIDES["classical"](small.work())
    with FlopCounterMode(display=False, custom_mapping=THEIRS) as counter:
        side.step()
    assert flops.counted(side.step)[0] == counter.get_total_flops()


def test_classical() -> None:
    """The policy forward and backward (3 forwards' worth; attention 3.5), the reference forward, all positions."""
    rows, length, _ = small.sizes()
    tokens = rows * length
    expected = 4 * (2 * N * tokens + 2 * H * V * tokens) + 9 * attention(rows, length) // 2
    assert flops.counted(SIDES["classical"](small.work()).step)[0] == expected


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.usefixtures("offline")
def test_trl() -> None:
    """TRL's head computes its logits again in the backward pass: four products where the policy learns."""
    pytest.importorskip("trl")
    rows, length, scored = small.sizes()
    trunk = 2 * N * rows * length
    shipped = 4 * trunk + 9 * attention(rows, length) // 2 + 5 * 2 * H * V * rows * (length - 1)
    best = 3 * trunk + 7 * attention(rows, length) // 2 + 4 * 2 * H * V * scored
    assert flops.counted(SIDES["trl"](small.work()).step)[0] == shipped
    assert flops.counted(SIDES["trl_best"](small.work()).step)[0] == best


@pytest.mark.parametrize("loss", ["dpo", "tdpo2"])
@pytest.mark.parametrize("level", small.LEVELS)
def test_ours_is_near_the_floor(level: str, loss: str) -> None:
    """Never below what must be done in the trunk; above the floor at most logits made twice and whole rectangles."""
    work = small.work(level, loss)
    trees = ours.together(work.rows) if work.grouped else ours.apart(work.rows)
    tokens = sum(len(tree) for tree in trees)
    scored = sum(len(tree.targets) for tree in trees)
    floor = flops.floor(small.SHAPE, trees, loss == "tdpo2")
    rectangles = sum(attention(1, len(tree)) for tree in trees)
    again = (1 if loss == "dpo" else 2) * 2 * H * V * scored
    count = flops.counted(SIDES["ours"](work).step)[0]
    assert 6 * N * tokens <= count <= floor + again + 7 * rectangles // 2


def test_floor_by_hand() -> None:
    """A prompt of 3 tokens and two sides of 2: 7 tokens, 4 scored; they see 1 + 2 + 3 and twice 4 + 5 = 24."""
    sides = [[5, 6, 7, 8, 9], [5, 6, 7, 10, 11]]
    tree = build_tree([TokenSequence(np.asarray(side, np.int32), 3, k) for k, side in enumerate(sides)], [0], [1.0])
    trunk, seen, head = 6 * N * 7, 3.5 * 2 * 24 * 4 * H, 2 * H * V * 4
    assert flops.floor(small.SHAPE, [tree], has_kl=False) == trunk + seen + 3 * head
    assert flops.floor(small.SHAPE, [tree], has_kl=True) == trunk + seen + 4 * head


@pytest.mark.slow
@pytest.mark.exhaustive
def test_tensors_without_data_count_the_same() -> None:
    """In a process of its own, as the benchmark does it."""
    code = (
        "import sys, json; sys.path[:0] = json.loads(sys.argv[1])\n"
        "from support import small; from benchmarks import counting, flops, ours\n"
        "work = small.work(); real = flops.counted(ours.ours(work).step)[0]\n"
        "print(json.dumps([real, counting.count(work)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(sys.path)], capture_output=True, text=True, check=True
    )
    real, counted = json.loads(done.stdout.strip().splitlines()[-1])
    assert real == counted
