"""A training warns, once, where a mean over scored tokens would be taken over the steps before a step as well."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.trainings import Runs

SAID = "level.prefix=response has the shared steps scored too"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, pairs_words: list[str], tiny_model: Path) -> Runs:
    words = [*pairs_words, "model=pretrained", f"model.path={tiny_model}", "max_steps=1"]
    words = [w for w in words if not w.startswith(("save_every", "eval_every"))]
    return Runs(tmp_path_factory.mktemp("prefix"), [*words, "save_every=0", "eval_every=0"])


@pytest.mark.parametrize("words", [("algo=simpo",), ("algo=dpo", "algo.sft_weight=1")], ids=" ".join)
def test_a_mean_over_a_scored_prefix(runs: Runs, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    runs.local(f"warned-{len(words)}", *words, "level.prefix=response")
    assert capsys.readouterr().out.count(SAID) == 1


@pytest.mark.parametrize(
    "words", [("algo=simpo",), ("algo=dpo", "level.prefix=response"), ("algo=simpo", "level=instance")], ids=" ".join
)
def test_where_there_is_nothing_to_warn_of(
    runs: Runs, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """No prefix is scored, or none counts; and at level=instance the papers take their means over it."""
    runs.local("-".join(words), *words)
    assert SAID not in capsys.readouterr().out
