"""All sides of a benchmark do the same work: same loss, same gradient, and nobody is slowed down or helped."""

from __future__ import annotations

from typing import Any

import pytest
from support import small

from benchmarks import peer_trl
from benchmarks.cases import SIDES
from benchmarks.measure import apart_by
from benchmarks.peer_classical import padded

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("offline"),
]
ROUNDING = 2e-5
"""Single precision, sums of some hundred nats."""


def outcome(name: str, work: Any) -> tuple[float, list[Any]]:
    side = SIDES[name](work)
    loss = float(side.step())
    return loss, [weight.grad for weight in side.model.parameters()]


@pytest.mark.parametrize("loss", ["dpo", "tdpo2"])
@pytest.mark.parametrize("level", small.LEVELS)
def test_same_loss_and_gradient(level: str, loss: str) -> None:
    names = ["pairs", "classical"]
    if loss == "dpo" and peer_trl.installed():
        names += ["trl", "trl_best"]
    work = small.work(level, loss)
    value, gradient = outcome("ours", work)
    assert abs(value - 0.6931) > 1e-4, "the policy stands where the reference stands"
    for name in names:
        theirs, other = outcome(name, work)
        assert value == pytest.approx(theirs, rel=ROUNDING), name
        assert apart_by(gradient, other) < ROUNDING, name


def test_trl_reads_the_same_tensors_as_the_classical_side() -> None:
    trl = pytest.importorskip("trl")
    collator = trl.trainer.dpo_trainer.DataCollatorForPreference(pad_token_id=0)
    work = small.work("instance")
    batch = collator(peer_trl.examples(work.rows))
    ids, attention, scored = padded(work.rows)
    assert batch["input_ids"].equal(ids)
    assert batch["attention_mask"].equal(attention)
    assert batch["completion_mask"].bool().equal(scored)


def test_forcing_the_compact_head_leaves_the_choice_of_kernels_alone() -> None:
    pytest.importorskip("trl")
    import torch
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    cpu = torch.device("cpu")
    assert not utils._use_triton(cpu)
    with peer_trl.compact():
        assert utils._use_triton(cpu)
        assert not chunked_logprob._use_triton(cpu)
    assert not utils._use_triton(cpu)


def test_rows_of_a_chain_begin_with_the_chosen_steps_before() -> None:
    first, second = small.LEVELS["chain"]
    assert second.prompt == first.prompt + first.chosen
    assert first.chosen[0] != first.rejected[0]


def test_an_instance_scores_its_earlier_steps_on_both_sides() -> None:
    for lengths, row in zip(small.LENGTHS, small.LEVELS["instance"], strict=True):
        assert len(row.prompt) == lengths.question
        assert row.chosen[: lengths.steps] == row.rejected[: lengths.steps]
        assert len(row.chosen) == lengths.steps + lengths.chosen + lengths.chosen_rest
