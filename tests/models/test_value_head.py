"""A value head is read where a step ends, saved beside a model that others open, and found again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support import labelled, tiny
from support.trainings import Runs
from transformers import AutoModelForCausalLM

from stepdpo.algo.value import Value
from stepdpo.core.errors import UserError
from stepdpo.core.types import Pair
from stepdpo.models import value_head
from stepdpo.models.attention.registry import register
from stepdpo.models.step_values import step_values
from stepdpo.models.value_head import FILE, LoadedHead, ValueHead
from stepdpo.tokens.step_scores import Squash, Trunk, ValueHeadSpec

SPEC = ValueHeadSpec(Squash.tanh)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("values")
    data = labelled.write(folder / "preferences.jsonl")
    given = ["dataset=jsonl", f"dataset.path={data}", "model=pretrained", f"model.path={tiny_model}"]
    common = [*given, "batch.pairs=8", "optim.lr=1e-2", "eval_every=0", "template=alpaca", "~recipe", "level=instance"]
    return Runs(folder, common).local("x", "algo=value", "algo.weight=1", "epochs=3", "algo.dropout=0")


def test_values_are_read_at_the_ends_of_steps(run: Path) -> None:
    """By hand: the stock model's last hidden state at the last token of each step, then the head and tanh."""
    folder, tokenizer = run / "model", tiny.tokenizer()
    question, steps = "What is 2 + 3?", ["Step 1: 2 + 3 = 5.\n", "Step 2: 5 = 5.\nThe answer is: 5"]
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=register()).eval()
    pairs = [Pair(question, "", "".join(steps), ""), Pair(question, "", steps[0], "")]
    found, dropped = step_values(pairs, model, folder, tiny.CHAT, tokenizer, torch.device("cpu"))
    assert not dropped
    stock = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    weights, squash = value_head.read(folder)
    assert squash is Squash.tanh
    text = tiny.CHAT.render(question, (), tokenizer).text
    expected = []
    for end in (text + steps[0], text + "".join(steps)):
        ids = torch.tensor([tokenizer(end)["input_ids"]])
        with torch.no_grad():
            hidden = stock.model(input_ids=ids).last_hidden_state[0, -1]
        expected.append(float(torch.tanh(hidden @ weights["weight"][0] + weights["bias"])))
    assert found[0] == pytest.approx(expected, abs=1e-5)
    assert found[1] == pytest.approx(expected[:1], abs=1e-5)


def test_others_open_a_plain_model(run: Path) -> None:
    _, told = AutoModelForCausalLM.from_pretrained(run / "model", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]


def test_training_goes_on_from_a_head(run: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    again, new = (value_head.make(SPEC, model, start) for start in (run / "model", None))
    assert torch.equal(again.weight.detach(), value_head.read(run / "model")[0]["weight"])
    assert not torch.equal(again.weight, new.weight)
    assert torch.equal(new.weight, value_head.make(SPEC, model, None).weight)


def test_a_head_that_does_not_fit_is_refused(run: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    value_head.write(tmp_path, {"weight": torch.zeros(1, 7), "bias": torch.zeros(1)}, Squash.tanh)
    with pytest.raises(UserError, match=r"weight is \(1, 7\) and should be \(1, 32\)"):
        value_head.make(SPEC, model, tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"no safetensors", "unsquashed"])
def test_a_damaged_or_missing_head_is_told(content: Any, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "model", tmp_path / "m")
    path = tmp_path / "m" / FILE
    if content is None:
        path.unlink()
    elif content == "unsquashed":
        from safetensors.torch import save_file

        save_file({"weight": torch.zeros(1, 32), "bias": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="no value head can be read"):
        LoadedHead.of(tmp_path / "m")


def test_dropout_keeps_the_mean_and_its_own_count() -> None:
    head = ValueHead(ValueHeadSpec(Squash.tanh, dropout=0.25), 4000, 0.02)
    ones = torch.ones(1, 4000)
    kept = head._kept(ones)
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.05)
    assert not torch.equal(kept, head._kept(ones))
    other = ValueHead(ValueHeadSpec(Squash.tanh, dropout=0.25), 4000, 0.02)
    other.load_state_dict({**head.state_dict(), "passes": torch.tensor(1)})
    head.load_state_dict({**head.state_dict(), "passes": torch.tensor(1)})
    assert torch.equal(head._kept(ones), other._kept(ones))
    with torch.no_grad():
        assert torch.equal(head(ones), head(ones))


@pytest.mark.parametrize("trunk", Trunk)
def test_what_the_gradient_reaches(trunk: Trunk) -> None:
    head = ValueHead(ValueHeadSpec(Squash.tanh, trunk=trunk), 8, 0.02)
    hidden = torch.ones(2, 8, requires_grad=True)
    head(hidden).sum().backward()
    assert (hidden.grad is not None) == (trunk is Trunk.live)
    assert head.weight.grad is not None


def test_a_frozen_trunk_is_left_as_it_was(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    data = labelled.write(tmp_path / "preferences.jsonl")
    given = ["dataset=jsonl", f"dataset.path={data}", "model=pretrained", f"model.path={tiny_model}"]
    runs = Runs(tmp_path, [*given, "batch.pairs=8", "eval_every=0", "template=alpaca", "~recipe", "level=instance"])
    frozen = runs.local("frozen", "algo=value", "algo.trunk=frozen", "algo.sft=0")
    before = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    after = AutoModelForCausalLM.from_pretrained(frozen / "model").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert Value().value_head.trunk is Trunk.live
