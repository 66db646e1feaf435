"""A supervised term over the chosen step and the right part of its rest, beside a preference for the step alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import tiny, twins
from support.twins import Setting, close, gradient_of, moved, ours, row, scoring, sums

from stepdpo.algo.cpo import CPO
from stepdpo.algo.dpo import DPO
from stepdpo.algo.kto import KTO
from stepdpo.algo.nca import NCA
from stepdpo.algo.simpo import SimPO
from stepdpo.algo.tdpo import TDPO
from stepdpo.algo.wpo import WPO
from stepdpo.core.types import Mark
from stepdpo.data.level import AppendEos, Instance, Prefix, Step
from stepdpo.data.step_marks import right_rest
from stepdpo.tokens.pair_scores import SftScope

REST = dict(sft_weight=0.7, sft_scope=SftScope.rest)
LOSSES = {
    "dpo": (DPO, twins.dpo), "tdpo": (TDPO, twins.tdpo2), "nca": (NCA, twins.nca), "kto": (KTO, twins.kto),
    "simpo": (SimPO, twins.simpo), "cpo": (CPO, twins.contrast), "wpo": (WPO, twins.wpo),
}  # fmt: skip
TWO = tiny.PREFERENCES[1]
WRONG = replace(
    TWO,
    chosen_rest="\nStep 2: She needs 7 / 7 = 1 box.\nStep 3: That makes 3.\nThe answer is: 3",
    chosen_steps=(Mark(len(TWO.prefix + TWO.chosen) + 1, 1.0), Mark(len(TWO.prefix + TWO.chosen) + 34, None)),
)
WRONG = replace(
    WRONG, chosen_steps=(*WRONG.chosen_steps, Mark(len(WRONG.prefix + WRONG.chosen + WRONG.chosen_rest), 0.0))
)
PREFERENCES = (tiny.PREFERENCES[0], WRONG, *tiny.PREFERENCES[1:])


def test_the_rest_ends_before_its_first_wrong_step() -> None:
    assert right_rest(WRONG) == "\nStep 2: She needs 7 / 7 = 1 box.\n"
    assert right_rest(TWO) == TWO.chosen_rest
    assert right_rest(replace(TWO, chosen_steps=(Mark(3, 0.0),))) == TWO.chosen_rest  # the step itself, or before it
    whole = len(TWO.prefix + TWO.chosen + TWO.chosen_rest)
    assert right_rest(replace(TWO, chosen_steps=(Mark(whole, 0.49),))) == ""
    assert right_rest(replace(TWO, chosen_steps=(Mark(whole, 0.5),))) == TWO.chosen_rest


def test_what_a_pair_says_of_its_rest() -> None:
    """An end of text follows a rest that is there to its final answer."""
    cut, right, none = (Step()(one) for one in (WRONG, TWO, tiny.PREFERENCES[0]))
    assert (cut.rest, cut.rest_ends) == (right_rest(WRONG), False)
    assert (right.rest, right.rest_ends) == (TWO.chosen_rest, True)
    assert Step(append_eos=AppendEos.off)(TWO).rest_ends is False
    assert (none.rest, none.rest_ends) == ("", False)
    assert (Instance()(TWO).rest, Instance()(TWO).rest_ends) == ("", True)


@pytest.mark.parametrize(
    "level", [Step(), Step(prefix=Prefix.response), Instance()], ids=["step", "prefix", "instance"]
)
@pytest.mark.parametrize("name", LOSSES)
def test_packed_equals_padded(name: str, level: Any, tmp_path: Path) -> None:
    kind, formula = LOSSES[name]
    setting = Setting(kind(**REST), level, preferences=PREFERENCES)
    metrics, gradient = ours(setting, tmp_path)
    plain = twins.twin(replace(setting, algo=kind()), formula)
    tokenizer = tiny.tokenizer()
    rows = []
    for preference in PREFERENCES:
        pair = level(preference)
        prompt = setting.template.render(pair.question, pair.history, tokenizer)
        read = prompt.text + pair.context
        rows.append(row(read, pair.chosen + pair.rest, pair.rest_ends, tokenizer))
    policy = moved(setting.make("sdpa").to(setting.dtype), setting.move)
    found = sums(policy, policy, rows, tokenizer.pad_token_id)
    nll = (-found.logps / found.tokens).mean()
    (0.7 * nll).backward()
    expected = {name: plain.gradient[name] + extra for name, extra in gradient_of(policy).items()}
    assert metrics["nll"] == pytest.approx(nll.item(), rel=1e-6)
    assert metrics["loss"] == pytest.approx(plain.loss + 0.7 * nll.item(), rel=1e-6)
    assert metrics["logps/chosen"] == pytest.approx(float(plain.chosen.logps.mean()), rel=1e-6)
    close(gradient, expected)


def test_what_is_shared_is_stored_and_computed_once(tmp_path: Path) -> None:
    """A rest adds its own tokens to the tree of its pair, and no others."""
    with scoring(Setting(DPO(), Step(), preferences=PREFERENCES), tmp_path / "plain") as (_, plain):
        sizes = plain.train.sizes(sorted(plain.train))
    with scoring(Setting(DPO(**REST), Step(), preferences=PREFERENCES), tmp_path / "rest") as (_, material):
        ids = sorted(material.train)
        assert material.train.sizes(ids).tolist() == [len(material.train[i]) for i in ids]
        assert material.train.predictions(ids).tolist() == [len(material.train[i].targets) for i in ids]
        more = material.train.sizes(ids) - sizes
        rests = [Step()(one) for one in PREFERENCES]
        assert [count > 0 for count in more.tolist()] == [bool(pair.rest) for pair in rests]


def test_a_scope_without_a_weight_is_refused() -> None:
    for kind, _ in LOSSES.values():
        with pytest.raises(ValueError, match="sft_scope=rest"):
            kind(sft_weight=0.0, sft_scope=SftScope.rest)
        assert "rest" not in kind().needs
        assert "rest" in kind(**REST).needs
