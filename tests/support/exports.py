"""Finished runs without a training: a tiny model, or an adapter beside one, with what a run's folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from stepdpo.core.types import Attempt, Grade
from stepdpo.data.template_card import card_entry
from stepdpo.evaluation.statistics import summarise
from stepdpo.models import value_head
from stepdpo.models.base_files import read_base, take_over
from stepdpo.models.lora import Lora
from stepdpo.models.save import write_card, write_model
from stepdpo.runtime.atomic_io import write_json, write_jsonl
from stepdpo.tokens.step_scores import Squash
from support import tiny

ALPACA = "### Instruction:\n{question}\n\n### Response:"
FACTS = {
    "format": "preferences", "rows": {"rows": 28, "usable": 27, "bad": 1}, "unit": "pairs", "trained_on": 24,
    "tokens": 2631, "left_out": {"too long": 3}, "fingerprint": "f" * 64,
}  # fmt: skip


def finished_run(
    root: Path, base: Path, adapter: Lora | None = None, template: Any = tiny.ALPACA, values: bool = False, **more: Any
) -> tuple[Path, Any]:
    """(the run's folder, the model that it trained); `more` goes into its configuration."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    if adapter:
        model = adapter.attach(model)
    tiny.perturb(model, size=0.05)
    folder = root / "model"
    folder.mkdir(parents=True)
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    write_model(model, weights, folder)
    take_over(read_base(base), tiny.tokenizer(), folder)
    write_card(folder, {**card_entry(template, tiny.tokenizer()), "run": root.name})
    if values:
        hidden = model.config.hidden_size
        drawn = {"weight": torch.randn(1, hidden, generator=torch.Generator().manual_seed(3)), "bias": torch.zeros(1)}
        value_head.write(folder, drawn, Squash.tanh)
    config = {
        "algo": {"_target_": "stepdpo.algo.dpo.DPO", "beta": 0.4},
        "level": {"_target_": "stepdpo.data.level.Step", "prefix": "prompt"},
        "model": {"_target_": "stepdpo.models.load.Pretrained", "path": str(base)},
        "dataset": {"_target_": "stepdpo.data.dataset.Dataset", "path": "some-owner/some-data"},
        **more,
    }
    OmegaConf.save(OmegaConf.create(config), root / "config.yaml")
    versions = {"torch": "2.0", "scipy": "1.0"}
    write_json(
        root / "manifest.json", {"stepdpo": "0.1.0", "started": "2026-05-04T00:00:00+00:00", "versions": versions}
    )
    write_json(root / "data.json", FACTS)
    return root, model


def evaluated(run: Path, task: str, right: int, wrong: int) -> None:
    """An evaluation with so many correct and wrong answers, in both graders' eyes."""
    marks = [Grade("correct", "1", "")] * right + [Grade("wrong", "2", "")] * wrong
    attempts = [
        Attempt(f"p{i}", f"{i}?", ("1",), "...", 10, "eos", official=mark, strict=mark) for i, mark in enumerate(marks)
    ]
    folder = run / "eval" / task
    folder.mkdir(parents=True)
    about = {"task": task, "decode": "greedy", "template": "alpaca", "model": "m"}
    write_json(folder / "summary.json", {**about, **summarise(attempts)})
    rows = []
    for a in attempts:
        grades = {name: {"verdict": g.verdict, "extracted": g.extracted, "reason": ""} for name, g in
                  (("official", a.official), ("strict", a.strict))}  # fmt: skip
        plain = ("problem_id", "question", "response", "tokens", "finish")
        rows.append({**{key: getattr(a, key) for key in plain}, "answers": list(a.answers), **grades})
    write_jsonl(folder / "attempts.jsonl", rows)
