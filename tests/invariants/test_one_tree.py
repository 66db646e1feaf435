"""All pairs of a problem in one tree: the same update as pair by pair, of fewer tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support import tiny
from support.twins import Setting, close, gradient_of, scoring

from stepdpo.algo.dpo import DPO
from stepdpo.algo.kto import KTO
from stepdpo.algo.sft import SFT
from stepdpo.algo.tdpo import TDPO
from stepdpo.core.types import Preference
from stepdpo.data.level import Instance, Prefix, Step
from stepdpo.tokens.batch_sampler import Group

STEPS = ("Tom has 3 + 4 = 7 pens.", "He gets 7 * 2 = 14 coins.", "He spends 4, so 14 - 4 = 10 are left.")
WRONG = ("Tom has 3 + 4 = 8 pens.", "He gets 7 + 2 = 9 coins.", "He spends 4, so 14 - 4 = 9 are left.")
QUESTION = "Tom has 3 pens and buys 4 more. He sells each for 2 coins and spends 4. How many coins are left?"


def chain(question: str = QUESTION) -> tuple[Preference, ...]:
    """One pair a step: the prefix of each holds the chosen step of the one before."""
    pairs = []
    prefix = f"{tiny.OPENING}\nStep 1:"
    for number, (right, wrong) in enumerate(zip(STEPS, WRONG, strict=True), start=1):
        pairs.append(Preference(question, prefix, f" {right}", f" {wrong}", confidence=1 - number / 10))
        prefix += f" {right}\nStep {number + 1}:"
    return tuple(pairs)


MIXED = (
    chain()[2],
    tiny.PREFERENCES[0],
    chain()[0],
    tiny.PREFERENCES[1],
    chain()[1],
    chain()[0],
    *tiny.PREFERENCES[3:],
)
"""A chain out of order, with one of its pairs twice, among other problems."""


def run(setting: Setting, folder: Path, group: Group, tokens: int = 100_000) -> tuple[dict[str, float], Any]:
    with scoring(setting, folder, tokens, group=group) as (done, material):
        metrics = done.compute(done.inputs(material.train, list(material.train), "train"), learn=True)
        return metrics, gradient_of(done.engine.model)


def both(setting: Setting, folder: Path, tokens: int) -> Sequence[tuple[dict[str, float], Any]]:
    return [run(setting, folder / group.value, group, tokens) for group in Group]


@pytest.mark.parametrize("tokens", [100_000, 250, 120])
@pytest.mark.parametrize("level", [Step(), Instance(prefix=Prefix.response)], ids=["step", "instance"])
@pytest.mark.parametrize("algo", [DPO(), TDPO(), KTO(), SFT()], ids=lambda a: type(a).__name__)
def test_merged_pairs_are_the_same_update(algo: Any, level: Any, tokens: int, tmp_path: Path) -> None:
    """Also where a problem's tree must be cut to fit; scored tokens that pairs share count for each of them."""
    (alone, gradient), (merged, of_merged) = both(Setting(algo, level, preferences=MIXED), tmp_path, tokens)
    assert merged.pop("tokens") < alone.pop("tokens")
    assert merged == pytest.approx(alone, rel=1e-6, abs=1e-9)
    close(of_merged, gradient)


def test_a_chain_is_little_more_than_its_last_pair(tmp_path: Path) -> None:
    """Merged: the longest chosen path and one wrong step a pair. Alone: the question once a pair."""
    setting = Setting(DPO(), Step(), preferences=chain())
    (alone, _), (merged, _) = both(setting, tmp_path, 100_000)
    with scoring(setting, tmp_path / "sizes") as (_, material):
        paths = [material.train.sequences(i) for i in material.train]
    longest = len(paths[2][0].tokens)
    wrong = sum(len(rejected.tokens) - rejected.first_scored for _, rejected in paths)
    assert longest <= merged["tokens"] <= longest + wrong
    assert alone["tokens"] > 2 * merged["tokens"]
