"""Tokens weighed by the contrast of two models, by hand; from the real command line, and into cDPO."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny
from support.commands import stepdpo
from transformers import AutoModelForCausalLM

from stepdpo.core.errors import UserError
from stepdpo.core.types import Preference
from stepdpo.data.level import Instance, swapped
from stepdpo.data.preference_file import from_row, write_preferences
from stepdpo.models.contrast import opened
from stepdpo.models.load import Pretrained
from stepdpo.pairs.critical import Critical


@pytest.fixture(scope="module")
def negative(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The same model, moved a little."""
    folder = tmp_path_factory.mktemp("models") / "negative"
    shutil.copytree(tiny_model, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tiny.perturb(model, size=0.1)
    model.save_pretrained(folder)
    return folder


def test_the_contrast_is_its_formula(tiny_model: Path, negative: Path) -> None:
    """P_positive^2 / P_negative over the vocabulary, normalised, at each token."""
    ids = tiny.tokenizer()("What is 2 + 3? It is 5.")["input_ids"]
    with opened(Pretrained(str(tiny_model)), Pretrained(str(negative))) as contrast:
        found = contrast(ids, 3)
    probs = []
    for folder in (tiny_model, negative):
        with torch.no_grad():
            logits = AutoModelForCausalLM.from_pretrained(folder)(input_ids=torch.tensor([ids])).logits[0].double()
        probs.append(logits.softmax(-1))
    for number, s in zip(range(3, len(ids)), found, strict=True):
        ratio = probs[0][number - 1] ** 2 / probs[1][number - 1]
        assert s == pytest.approx(float(ratio[ids[number]] / ratio.sum()), rel=1e-4)


def test_equal_models_give_the_models_own_probabilities(tiny_model: Path) -> None:
    ids = tiny.tokenizer()("What is 2 + 3?")["input_ids"]
    same = Pretrained(str(tiny_model))
    with opened(same, same) as contrast, torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(tiny_model)(input_ids=torch.tensor([ids])).logits[0]
        expected = logits.softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None]).squeeze(1)
        assert contrast(ids, 1) == pytest.approx(expected.tolist(), rel=1e-4)


def found(path: Path, tiny_model: Path, negative: Path, **more: Any) -> list[Preference]:
    method = Critical(str(path), str(tiny_model), str(negative), **more)
    return [problem.meta["weighed"] for problem in method.problems()]


def test_every_token_of_a_rejected_side_has_a_weight(tmp_path: Path, tiny_model: Path, negative: Path) -> None:
    """The shared steps keep 1; each mark ends where a token ends, the last one with the text."""
    write_preferences(tiny.PREFERENCES, tmp_path / "p.jsonl")
    for before, after in zip(tiny.PREFERENCES, found(tmp_path / "p.jsonl", tiny_model, negative), strict=True):
        marks = list(after.rejected_weights)
        text = before.prefix + before.rejected + before.rejected_rest
        if before.prefix:
            assert (marks[0].end, marks.pop(0).value) == (len(before.prefix), 1.0)
        assert marks[-1].end == len(text)
        ids = tiny.tokenizer()(before.rejected + before.rejected_rest)["input_ids"]
        assert len(marks) == len(ids)
        assert all(mark.value is not None and 0 < mark.value < 1 for mark in marks)
        assert not after.chosen_weights
        assert after.chosen == before.chosen


def test_both_sides_where_that_is_asked_for(tmp_path: Path, tiny_model: Path, negative: Path) -> None:
    write_preferences(tiny.PREFERENCES[:1], tmp_path / "p.jsonl")
    ((one),) = found(tmp_path / "p.jsonl", tiny_model, negative, both=True)
    assert len(one.chosen_weights) > 2


def test_sides_change_places() -> None:
    """Twice is as it was; what a swapped pair trains on is the rejected side."""
    for preference in tiny.PREFERENCES:
        assert swapped(swapped(preference)) == preference
        assert Instance(swap=True)(preference).chosen == Instance()(preference).rejected
    with pytest.raises(UserError, match=r"level\.swap"):
        swapped(Preference("Q", "", "a", ""))


def test_data_without_rejected_sides_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    write_preferences([Preference("Q", "", "a", "")], tmp_path / "p.jsonl")
    with pytest.raises(UserError, match="has no rejected sides"):
        list(Critical(str(tmp_path / "p.jsonl"), str(tiny_model), str(tiny_model)).problems())


@pytest.mark.slow
def test_from_pairs_to_cdpo(tmp_path: Path, preferences: Path, tiny_model: Path, negative: Path) -> None:
    models = (f"pairs.positive={tiny_model}", f"pairs.negative={negative}")
    done = stepdpo("pairs", "pairs=critical", f"pairs.path={preferences}", *models, "run=weighed", cwd=tmp_path)
    assert done.code == 0, done.said
    assert f"{preferences}: pairs\n" in done.out
    rows = [json.loads(line) for line in (tmp_path / "runs/weighed/preferences.jsonl").read_text().splitlines()]
    assert len(rows) == len(preferences.read_text().splitlines())
    assert all(from_row(row).rejected_weights for row in rows)
    given = ("dataset=jsonl", "dataset.path=runs/weighed", "model=pretrained", f"model.path={tiny_model}")
    words = ("max_steps=1", "batch.pairs=8", "template=alpaca", "~recipe", "engine=local", "run=x")
    done = stepdpo("train", "algo=cdpo", *given, *words, cwd=tmp_path)
    assert done.code == 0, done.said
    last = json.loads((tmp_path / "runs/x/metrics.jsonl").read_text().splitlines()[-1])
    assert last["weights/chosen"] == 1
    assert 0 < last["weights/rejected"] < 1
