"""Everything with everything under DeepSpeed: two processes compute the padded twin's loss and every gradient.

One update a case, not a training; test_zero_matrix.py trains a part of the product.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import tiny
from support.options import FEW, LEVELS, SHARED_OUT, ZERO, Case, covering, engine_of, every
from support.trainings import PROCESSES, launched
from support.twins import Rows

from stepdpo.tokens.batch_sampler import micro_batches
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.preprocess import prepare

ALL = every(ZERO)
ENGINES = list(dict.fromkeys(map(engine_of, ALL)))
TWO = [("kept", "whole", "stage-1"), ("recomputed", "few-head", "stage-3")]
"""Engines of the default run."""


def outcomes(cases: Sequence[Case], folder: Path, patience: float) -> dict[Case, str]:
    """What is wrong with each case, or nothing."""
    tiny.model("eager").save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    (folder / "cases.json").write_text(json.dumps(cases))
    source = Path(__file__).parents[3]
    done = launched("product.py", folder, patience, PYTHONPATH=f"{source}:{source / 'tests'}")
    found: dict[Case, str] = {}
    for rank in range(PROCESSES):
        lines = [json.loads(line) for line in (folder / f"{rank}.jsonl").read_text().splitlines()]
        after = f"the last was {lines[-1]['case']}" if lines else "there was none"
        assert done.returncode == 0, f"process {rank} ended, {after}:\n{done.stderr[-3000:]}"
        assert len(lines) == len(cases)
        for line in lines:
            case = tuple(line["case"])
            found[case] = found.get(case, "") or (line["wrong"] and f"process {rank}: {line['wrong']}")
    return found


def said(wrong: dict[Case, str]) -> str:
    return "\n".join(f"{' '.join(case)}: {what}" for case, what in wrong.items() if what)


@pytest.mark.slow
def test_a_sample(tmp_path: Path) -> None:
    """Every two options that two engines have."""
    sample = covering([case for case in ALL if engine_of(case) in TWO])
    found = outcomes(sample, tmp_path, patience=400)
    assert not said(found)


@pytest.mark.parametrize("level", LEVELS)
def test_the_two_processes_are_not_alike(level: str, tmp_path: Path) -> None:
    """Shares of unequal size, a stand-in of weight 0, and two pairs in one tree; else packing would compare nothing."""
    material = prepare(
        Rows(FEW), LEVELS[level], tiny.CHAT, frozenset({"rejected"}), tiny.tokenizer(), Lengths(max_length=512),
        tmp_path,
    )  # fmt: skip
    pairs, weights, tokens = {}, {}, {}
    for packing, (budget, group) in SHARED_OUT.items():
        shares = [
            list(micro_batches(material.train, [0, 1, 2], budget, rank, PROCESSES, group)) for rank in range(PROCESSES)
        ]
        pairs[packing] = sorted(sum(p.batch.pairs for p in share if p.weight) for share in shares)
        weights[packing] = [[p.weight for p in share] for share in shares]
        tokens[packing] = sum(p.batch.input_ids_RL.numel() for share in shares for p in share if p.weight)
    assert set(map(tuple, pairs.values())) == {(1, 2)}
    assert weights == {"one-row": [[1], [1]], "alone": [[1, 1], [1, 0]], "problems": [[1], [1]]}
    assert tokens["problems"] < tokens["alone"] == tokens["one-row"]


@pytest.fixture(scope="module")
def all_outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, str]:
    return outcomes(ALL, tmp_path_factory.mktemp("product"), patience=1500)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("engine", ENGINES, ids=" ".join)
def test_all(all_outcomes: dict[Case, str], engine: Case) -> None:
    found = {case: what for case, what in all_outcomes.items() if engine_of(case) == engine}
    assert len(found) == sum(engine_of(case) == engine for case in ALL) > 0
    assert not said(found)
