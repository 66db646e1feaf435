"""How likely a model finds both sides of preferences, and whether it would write them itself.

A side is called in distribution when its mean log-probability a token is not below the 5 % quantile of what the model
writes by itself at temperature 1 after the same texts. So 95 of 100 of its own steps are, by construction, and a text
of another hand is as far as it reads like the model's. Lengths do not enter, as they would with sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from stepdpo.core.protocols import Level, Template
from stepdpo.core.steps import cut_step
from stepdpo.core.types import Pair, Preference, Sampling
from stepdpo.data.statistics import quantile
from stepdpo.data.template_card import resolve
from stepdpo.generation.transformers import TransformersSampler
from stepdpo.models.attention.registry import Attention, register
from stepdpo.models.integrity import refuse_unknown_tokens
from stepdpo.models.load import DTYPES, ModelSpec, without_progress_bars
from stepdpo.models.scorer import Scorer
from stepdpo.tokens.batch import CHOSEN, REJECTED
from stepdpo.tokens.collator import collate
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.packing import balance
from stepdpo.tokens.token_tree import build_tree
from stepdpo.tokens.tokenization import generation_prompt, refusals, tokenize
from stepdpo.training.engine.settings import Device, Dtype, pick_device, pick_dtype

SHARE = 0.05
"""Of the model's own texts that count as out of distribution."""
OWN = 200
"""Texts that the model writes to be compared with: the lowest twentieth of them is then ten texts, not one or two."""
TOKENS = 8192
"""Most tokens a forward pass computes."""
NEXT_STEP = "\nStep "


@dataclass(frozen=True)
class Likelihoods:
    """Mean log-probabilities a token, in nats, under one model."""

    model: str
    template: str
    chosen: tuple[float, ...]
    rejected: tuple[float, ...]
    """As many as `chosen`; empty for data without rejected sides."""
    own: tuple[float, ...]
    """Of texts that the model wrote itself."""
    left_out: Mapping[str, int]
    """Pairs that could not be scored, by reason."""

    @property
    def threshold(self) -> float:
        """What is below this is out of distribution."""
        return quantile(sorted(self.own), SHARE) if self.own else float("-inf")

    def summary(self) -> dict[str, Any]:
        """Plain numbers."""
        count = max(1, len(self.chosen))
        likelier = sum(c > r for c, r in zip(self.chosen, self.rejected, strict=False))
        sides = {"chosen": self.chosen, "rejected": self.rejected, "own": self.own}
        return {
            "model": self.model,
            "template": self.template,
            "pairs": len(self.chosen),
            "left out": dict(self.left_out),
            "mean log-probability a token": {k: sum(v) / len(v) for k, v in sides.items() if v},
            "chosen likelier": likelier / count if self.rejected else None,
            "threshold": self.threshold if self.own else None,
            "in distribution": {
                k: sum(x >= self.threshold for x in v) / len(v) for k, v in sides.items() if v and self.own
            },
        }


def likelihoods(
    preferences: Sequence[Preference],
    level: Level,
    template: Template,
    model: ModelSpec,
    own: int = OWN,
) -> Likelihoods:
    """Score the preferences, cut to the level, under a part of the group `model`, and texts of its own beside them."""
    without_progress_bars()
    device = pick_device(Device.auto)
    tokenizer = model.tokenizer()
    template, _ = resolve(template, model.source, tokenizer)
    everything = [level(preference) for preference in preferences]
    # Texts are written after these prompts too, so that rows that have none must be gone before.
    reasons = list(refusals(everything, template, tokenizer))
    pairs = [pair for pair, reason in zip(everything, reasons, strict=True) if not reason]
    # Before the model is loaded to score: the sampler has a copy of its own, and two need not be in memory together.
    written = _write(pairs[:: max(1, len(pairs) // own)][:own], template, tokenizer, model) if own else []
    attention = register(Attention.auto, device)
    dtype = DTYPES[pick_dtype(Dtype.auto, device).value]
    loaded = model.model(attention, dtype).eval()
    refuse_unknown_tokens(tokenizer, loaded, model.source)
    scorer = Scorer(loaded, False, lambda _: nullcontext()).to(device)
    scores, dropped = mean_logps(pairs, scorer, template, tokenizer, device)
    dropped.update(filter(None, reasons))
    theirs, _ = mean_logps(written, scorer, template, tokenizer, device)
    return Likelihoods(
        model=str(getattr(model, "path", model.source)),
        template=template.name,
        chosen=tuple(one[CHOSEN] for one in scores),
        rejected=tuple(one[REJECTED] for one in scores if len(one) > 1),
        own=tuple(one[CHOSEN] for one in theirs),
        left_out=dropped,
    )


@torch.no_grad()
def mean_logps(
    pairs: Sequence[Pair], scorer: Scorer, template: Template, tokenizer: Any, device: torch.device
) -> tuple[list[list[float]], Counter[str]]:
    """(mean log-probability a scored token of the sides of every usable pair; what was left out)."""
    tokenized = tokenize(pairs, template, tokenizer, Lengths())
    trees = [build_tree(sequences, [number], [1.0]) for number, sequences in tokenized.sequences.items()]
    means: list[list[float]] = [[] for _ in trees]
    for micro_batch in balance([len(tree) for tree in trees], TOKENS, 1) if trees else []:
        if not micro_batch:
            continue
        batch = collate([trees[member] for member in micro_batch])
        logps_R, _, tokens_R = scorer(batch.to(device))[:3]
        each = (logps_R / tokens_R.clamp(min=1)).split(list(batch.responses))
        for member, found in zip(micro_batch, each, strict=True):
            means[member] = found.tolist()
    return means, tokenized.dropped


def _write(pairs: Sequence[Pair], template: Template, tokenizer: Any, model: ModelSpec) -> list[Pair]:
    """What the model itself writes at the places of these pairs, as pairs without a rejected side.

    Up to the next step where steps are scored, to the end where whole responses are. Texts that never ended are left
    out, as are empty ones.
    """
    prompts, joints = [], []
    for pair in pairs:
        prompt = template.render(pair.question, pair.history, tokenizer)
        begun = generation_prompt(prompt, tokenizer)
        prompts.append(prompt.text + prompt.joint + pair.context if pair.context else begun.text)
        joints.append("" if pair.context else begun.joint)
    with TransformersSampler(progress=False).open(model) as sampler:
        drawn = sampler.sample(prompts, Sampling(1, 1.0, 1.0, 512, _stops(pairs), 0))
    written = []
    for pair, joint, (completion,) in zip(pairs, joints, drawn, strict=True):
        text = completion.text.removeprefix(joint)
        text = text if pair.chosen_ends else cut_step(text)[0]
        if text.strip() and completion.finish != "length" and completion.text.startswith(joint):
            ends = pair.chosen_ends and completion.finish == "eos"
            written.append(Pair(pair.question, pair.context, text, "", ends, False, 1.0, pair.history))
    return written


def _stops(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Where all pairs are about steps, the next one's beginning."""
    return () if any(pair.chosen_ends for pair in pairs) or not all(p.context for p in pairs) else (NEXT_STEP,)
