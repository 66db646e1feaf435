"""What a model makes of both sides: against a stock model's log-probabilities, and by hand."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny
from support.commands import stepdpo

from stepdpo.cli.check_likelihood import Likelihoods, likelihoods, mean_logps
from stepdpo.core.types import Pair
from stepdpo.data.level import Instance, Step
from stepdpo.models.attention.registry import register
from stepdpo.models.load import Pretrained
from stepdpo.models.scorer import Scorer


def stock(model: Any, pair: Pair, side: str, ends: bool) -> float:
    """Mean log-probability of a side's tokens, by a row of its own through a stock model."""
    tokenizer = tiny.tokenizer()
    prompt = tiny.CHAT.render(pair.question, (), tokenizer)
    unscored = prompt.text + prompt.joint + pair.context
    first = len(tokenizer(unscored)["input_ids"])
    ids = tokenizer(unscored + side)["input_ids"] + ([tokenizer.eos_token_id] if ends else [])
    with torch.no_grad():
        logps = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    scored = [float(logps[place - 1, ids[place]]) for place in range(first, len(ids))]
    return sum(scored) / len(scored)


@pytest.mark.parametrize("level", [Step(), Instance()], ids=["step", "instance"])
def test_means_are_those_of_a_stock_model(level: Any) -> None:
    scorer = Scorer(tiny.model(register()).eval(), False, lambda _: nullcontext())
    plain = tiny.model("sdpa").eval()
    pairs = [level(preference) for preference in tiny.PREFERENCES]
    alone = [Pair(pair.question, pair.context, pair.chosen, "", pair.chosen_ends) for pair in pairs]
    means, dropped = mean_logps([*pairs, *alone], scorer, tiny.CHAT, tiny.tokenizer(), torch.device("cpu"))
    assert not dropped
    for pair, found, single in zip(pairs, means[: len(pairs)], means[len(pairs) :], strict=True):
        expected = [
            stock(plain, pair, pair.chosen, pair.chosen_ends), stock(plain, pair, pair.rejected, pair.rejected_ends)
        ]  # fmt: skip
        assert found == pytest.approx(expected, abs=1e-4)
        assert single == pytest.approx(expected[:1], abs=1e-4)


def test_the_summary_by_hand() -> None:
    """The model's own 20 texts: -1 to -20. Of 20 the 5 % quantile is the second lowest, -19."""
    own = tuple(-float(i) for i in range(1, 21))
    found = Likelihoods("m", "t", (-1.0, -19.0, -19.5, -2.0), (-2.0, -3.0, -20.0, -1.0), own, {"over-long": 1})
    assert found.threshold == -19.0
    assert found.summary() == {
        "model": "m",
        "template": "t",
        "pairs": 4,
        "left out": {"over-long": 1},
        "mean log-probability a token": {"chosen": -10.375, "rejected": -6.5, "own": -10.5},
        "chosen likelier": 0.5,
        "threshold": -19.0,
        "in distribution": {"chosen": 0.75, "rejected": 0.75, "own": 0.95},
    }
    alone = Likelihoods("m", "t", (-1.0,), (), (), {}).summary()
    assert (alone["chosen likelier"], alone["threshold"], alone["in distribution"]) == (None, None, {})


def test_rows_that_cannot_be_written_are_left_out(tmp_path: Path) -> None:
    """Of the model's own texts too, which are written after the same prompts."""
    tiny.save_model(tmp_path / "model", tied=True)
    model, bad = Pretrained(path=str(tmp_path / "model")), "<|im_end|>"
    mixed = [*tiny.PREFERENCES[:2], replace(tiny.PREFERENCES[2], question=f"2 + 3?{bad}")]
    found = likelihoods(mixed, Step(), tiny.CHAT, model, own=3)
    reason = f"question holds the control token '{bad}'"
    assert (len(found.chosen), found.left_out) == (2, {reason: 1})
    alone = likelihoods(mixed[2:], Step(), tiny.CHAT, model, own=3).summary()
    assert (alone["pairs"], alone["left out"], alone["threshold"]) == (0, {reason: 1}, None)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_foreign_texts_are_not_the_models_own(preferences: Path) -> None:
    """The miniature writes steps in its own words; the same pairs with their letters turned round are foreign."""
    from stepdpo.data.dataset import Dataset
    from stepdpo.data.templates import NativeTemplate

    given = Dataset(path=str(preferences)).load().preferences
    foreign = [replace(p, chosen=p.chosen[::-1]) for p in given]
    model = Pretrained(path="pkg://tinymath/model")
    usual, turned = (likelihoods(some, Step(), NativeTemplate(), model).summary() for some in (given, foreign))
    assert usual["in distribution"]["chosen"] > 0.8
    assert usual["chosen likelier"] > 0.5
    assert turned["in distribution"]["chosen"] == 0
    assert turned["chosen likelier"] == 0


@pytest.mark.slow
def test_through_the_command_line(preferences: Path, tmp_path: Path) -> None:
    words = ("check", preferences, "--model", "tinymath", "--pairs", "8", "--task", "tinymath")
    done = stepdpo(*words, "--json", tmp_path / "found.json", cwd=tmp_path)
    assert done.code == 0, done.said
    assert "8 of 28 preferences" in done.out
    assert "the chosen side is the likelier one in" in done.out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["model"]["pairs"] == 8
    assert found["model"]["template"] == "native"
    assert sum(found["steps"].values()) == 28
    assert found["tasks"] == {"tinymath": 1000}


@pytest.mark.slow
@pytest.mark.exhaustive
def test_wrong_names(preferences: Path, tmp_path: Path) -> None:
    for words, said in (
        (("--model", "tinymaht"), "model=tinymaht: there is no such model; did you mean 'tinymath'?"),
        (("--model", "./nowhere"), "holds no config.json"),
        (("--model", "tinymath", "--template", "alpca"), "did you mean 'alpaca'?"),
    ):
        done = stepdpo("check", preferences, *words, cwd=tmp_path)
        assert (done.code, said in done.err) == (2, True), done.said
        assert "Traceback" not in done.err
