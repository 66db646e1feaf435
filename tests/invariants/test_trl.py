"""TRL's DPOTrainer, as it is, on the same rows: same tokens, loss, rewards and gradients.

TRL reads texts: `prompt`, `chosen`, `rejected`. It tokenises prompt + completion at once, as we do, and ends every
completion with the end-of-text token, which is our `append_eos: on`. At step level the prefix goes into its prompt.
The policy has moved away from the reference, so that the rewards are not all 0. TRL sums in single precision,
whatever the model's, so agreement is to the rounding of sums of some hundred nats.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import tiny
from support.scores import pair_scores
from support.twins import Rows, Setting, close, gradient_of, moved, ours

from stepdpo.algo.cpo import CPO
from stepdpo.algo.dpo import DPO, Form, Normalise
from stepdpo.algo.nca import NCA
from stepdpo.algo.orpo import ORPO
from stepdpo.algo.simpo import SimPO
from stepdpo.algo.wpo import WPO
from stepdpo.core.types import Preference
from stepdpo.data.level import AppendEos, Instance, Step
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.preprocess import prepare

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

SURE = tuple(
    Preference(p.question, p.prefix, p.chosen, p.rejected, p.chosen_rest, p.rejected_rest) for p in tiny.PREFERENCES
)
"""Without confidences, which TRL does not know."""
ROUNDING = 1e-4
LEVELS = {
    "instance": Instance(append_eos=AppendEos.on),
    "step": Step(append_eos=AppendEos.on),
}


def rows(level: Any) -> list[dict[str, str]]:
    """What a user of TRL would write for these pairs."""
    prompts = [tiny.CHAT.prompt.replace("{question}", p.question) for p in SURE]
    if isinstance(level, Step):
        return [
            {"prompt": prompt + p.prefix, "chosen": p.chosen, "rejected": p.rejected}
            for prompt, p in zip(prompts, SURE, strict=True)
        ]
    return [
        {
            "prompt": prompt,
            "chosen": p.prefix + p.chosen + p.chosen_rest,
            "rejected": p.prefix + p.rejected + p.rejected_rest,
        }
        for prompt, p in zip(prompts, SURE, strict=True)
    ]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The trainer sets variables of its own; none of them outlives a test."""
    before = dict(os.environ)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    for name in set(os.environ) - set(before):
        monkeypatch.delenv(name)


def trainer(level: Any, setting: Setting, folder: Path, loss: str, **more: Any) -> Any:
    from datasets import Dataset

    policy, reference = (setting.make("sdpa").to(setting.dtype) for _ in range(2))
    moved(policy, setting.move)
    return trl.DPOTrainer(
        model=policy,
        ref_model=reference,
        args=trl.DPOConfig(
            output_dir=str(folder),
            beta=0.4,
            loss_type=loss,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            per_device_train_batch_size=len(SURE),
            report_to="none",
            disable_tqdm=True,
            **more,
        ),
        train_dataset=Dataset.from_list(rows(level)),
        processing_class=tiny.tokenizer(),
    )


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_loss_rewards_and_gradient(level: Any, tmp_path: Path) -> None:
    setting = Setting(DPO(beta=0.4), level, preferences=SURE, dtype=torch.float32)
    theirs = trainer(level, setting, tmp_path / "trl", "sigmoid")
    batch = theirs.data_collator(list(theirs.train_dataset))
    loss = theirs.compute_loss(theirs.model, batch)
    loss.backward()
    seen = {name: values[0] for name, values in theirs._metrics["train"].items()}
    metrics, gradient = ours(setting, tmp_path / "ours")
    assert metrics["loss"] == pytest.approx(loss.item(), rel=ROUNDING)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"):
        assert metrics[name] == pytest.approx(seen[name], rel=ROUNDING, abs=ROUNDING), name
    assert metrics["rewards/accuracies"] == pytest.approx(seen["rewards/accuracies"])
    assert abs(seen["rewards/margins"]) > 0.01
    close(gradient, gradient_of(theirs.model), rtol=ROUNDING)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_tokens_are_the_same(level: Any, tmp_path: Path) -> None:
    setting = Setting(DPO(), level, preferences=SURE)
    theirs = trainer(level, setting, tmp_path / "trl", "sigmoid")
    material = prepare(Rows(SURE), level, tiny.CHAT, DPO().needs, tiny.tokenizer(), Lengths(), tmp_path / "ours")
    for number, example in enumerate(theirs.train_dataset):
        tree = material.train[number]
        for owner, side in enumerate(("chosen", "rejected")):
            terms = tree.terms[tree.owners == owner]
            sources, targets = tree.sources[terms], tree.targets[terms]
            order = tree.positions[sources].argsort()
            assert targets[order].tolist() == example[f"{side}_ids"]
            first = sources[order[0]]
            before = [int(tree.tokens[k]) for k in range(first + 1) if first < tree.ends[k]]
            assert before == example["prompt_ids"]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("loss", "algo"),
    [
        ("hinge", DPO(beta=0.4, form=Form.hinge)),
        ("nca_pair", NCA(beta=0.4)),
        ("ipo", DPO(beta=0.4, form=Form.ipo, normalise=Normalise.mean)),
        ("sigmoid_norm", DPO(beta=0.4, normalise=Normalise.mean)),
    ],
    ids=["hinge", "nca", "ipo", "sigmoid_norm"],
)
def test_other_losses_that_trl_has(loss: str, algo: Any, tmp_path: Path) -> None:
    level = LEVELS["instance"]
    setting = Setting(algo, level, preferences=SURE, dtype=torch.float32)
    theirs = trainer(level, setting, tmp_path / "trl", loss)
    value = theirs.compute_loss(theirs.model, theirs.data_collator(list(theirs.train_dataset)))
    value.backward()
    metrics, gradient = ours(setting, tmp_path / "ours")
    assert metrics["loss"] == pytest.approx(value.item(), rel=ROUNDING)
    close(gradient, gradient_of(theirs.model), rtol=ROUNDING)


@pytest.mark.usefixtures("offline")
def test_weights_of_pairs(tmp_path: Path) -> None:
    """WPO's. TRL does not clamp them, so that only below 1 they are the same."""
    level = LEVELS["instance"]
    setting = Setting(WPO(beta=0.4), level, preferences=SURE, dtype=torch.float32)
    theirs = trainer(level, setting, tmp_path / "trl", "sigmoid", use_weighting=True)
    value = theirs.compute_loss(theirs.model, theirs.data_collator(list(theirs.train_dataset)))
    value.backward()
    metrics, gradient = ours(setting, tmp_path / "ours")
    assert metrics["weight"] < 0.9
    assert metrics["weight_clamped"] == 0
    assert metrics["loss"] == pytest.approx(value.item(), rel=ROUNDING)
    close(gradient, gradient_of(theirs.model), rtol=ROUNDING)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_losses_without_a_reference() -> None:
    """TRL's functions of means (SimPO, ORPO) and sums (CPO) alone; `simpo_gamma` is gamma, ORPO's beta our alpha."""
    cpo = pytest.importorskip("trl.experimental.cpo").CPOTrainer.cpo_loss
    orpo = pytest.importorskip("trl.experimental.orpo").ORPOTrainer.odds_ratio_loss
    logps: Any = torch.tensor([-3.0, -7.5, -1.0]), torch.tensor([-4.0, -2.0, -9.0])
    tokens = [4, 3, 2], [2, 5, 6]
    scores = pair_scores(*(side.tolist() for side in logps), tokens=tokens[0], rejected_tokens=tokens[1])
    means = [side / torch.tensor(n) for side, n in zip(logps, tokens, strict=True)]
    plain = {"alpha": 0.0, "label_smoothing": 0.0, "accelerator": SimpleNamespace(device="cpu")}
    theirs = cpo(SimpleNamespace(loss_type="simpo", beta=2.5, simpo_gamma=1.375, **plain), *means)[0]
    torch.testing.assert_close(SimPO(beta=2.5, gamma_beta_ratio=0.55)(scores).losses_B, theirs)
    theirs = cpo(SimpleNamespace(loss_type="sigmoid", beta=0.1, **plain), *logps)[0]
    torch.testing.assert_close(CPO(sft_weight=0.0)(scores).losses_B, theirs)
    theirs = orpo(SimpleNamespace(beta=0.1, **plain), *means)[0]  # to be taken from the supervised loss
    torch.testing.assert_close(ORPO(alpha=0.1)(scores).losses_B, -means[0] - theirs)
