"""Two ways to the same numbers: ours (packed trees, cached reference) and the obvious one (padded rows, two models).

The padded twin shares no code with the package but the templates: it tokenises, masks, pads, runs the stock model
on chosen and rejected rows, takes log_softmax of full logits, gathers, sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stepdpo.core.types import Preference
from stepdpo.data.validation import Loaded
from stepdpo.models.attention.registry import register
from stepdpo.models.scorer import Scorer, head_of
from stepdpo.tokens.batch_sampler import BatchSize, Group
from stepdpo.tokens.lengths import Lengths
from stepdpo.tokens.preprocess import TokenizedDataset, prepare
from stepdpo.training.engine.local import Local
from stepdpo.training.engine.settings import Device
from stepdpo.training.optimizer import AdamW
from stepdpo.training.reference import CachedReference
from stepdpo.training.step import TrainStep
from support import tiny

MakeModel = Callable[[str], Any]
"""attention -> model; the same weights every time."""
Gradient = dict[str, Tensor]


@dataclass(frozen=True)
class Rows:
    """A data set that is just there."""

    preferences: Sequence[Preference]

    def load(self) -> Loaded:
        return Loaded(tuple(self.preferences))


@dataclass(frozen=True)
class Setting:
    """One training situation, for both twins."""

    algo: Any
    level: Any
    template: Any = tiny.CHAT
    preferences: Sequence[Preference] = tiny.PREFERENCES
    make: MakeModel = tiny.model
    dtype: torch.dtype = torch.float64
    """In double precision two ways to the same number agree far beyond any doubt."""
    move: float = 0.02
    """How far the policy has moved from the reference; 0 for a policy that still is the reference."""
    reference: MakeModel | None = None
    """The reference where it is not the policy's start."""


def moved(model: Any, size: float) -> Any:
    if size:
        tiny.perturb(model, size=size)
    return model


def gradient_of(model: Any) -> Gradient:
    return {name: p.grad.clone() if p.grad is not None else torch.zeros_like(p) for name, p in model.named_parameters()}


def close(got: Gradient, wanted: Gradient, rtol: float = 1e-6) -> None:
    """Every parameter's gradient agrees, relative to its own size (and to a tenth of that of the whole gradient's)."""
    assert got.keys() == wanted.keys()
    whole = torch.stack([g.norm() for g in wanted.values()]).norm()
    assert whole > 0
    for name, expected in wanted.items():
        error = (got[name] - expected).norm()
        assert error <= rtol * (expected.norm() + whole / 10), f"{name}: {error} off, of {expected.norm()}"


# Ours


@contextmanager
def scoring(
    setting: Setting, folder: Path, tokens: int = 100_000, group: Group = Group.none, **local: Any
) -> Iterator[tuple[TrainStep, TokenizedDataset]]:
    """Our stack, its reference written, its policy moved away from it."""
    attention = register()

    def build(_: torch.dtype, gather: Any) -> Scorer:
        with_kl, other = "kl" in setting.algo.needs, setting.reference
        head_VH = head_of(other(attention).to(setting.dtype), gather) if other and with_kl else None
        model, collision = setting.make(attention).to(setting.dtype), "collision" in setting.algo.needs
        return Scorer(model, with_kl, gather, reference_head_VH=head_VH, collision=collision)

    def plain(_: torch.dtype, gather: Any) -> Scorer:
        assert setting.reference
        return Scorer(setting.reference(attention).to(setting.dtype), False, gather)

    material = prepare(
        Rows(setting.preferences),
        setting.level,
        setting.template,
        setting.algo.needs,
        tiny.tokenizer(),
        Lengths(max_length=512),
        folder,
    )
    with Local(device=Device.cpu, **local).open(build, AdamW()) as engine:
        batch = BatchSize(tokens=tokens, group=group)
        second = (lambda: engine.build_reference(plain)) if setting.reference else None
        references = CachedReference(engine, setting.algo.needs, batch, {"test": str(folder)}, second)
        done = TrainStep(engine, setting.algo, batch, references)
        done.prepare(material)
        moved(engine.model, setting.move)
        yield done, material


def ours(setting: Setting, folder: Path, tokens: int = 100_000, **local: Any) -> tuple[dict[str, float], Gradient]:
    """Mean metrics and the gradient of the mean loss over all pairs."""
    with scoring(setting, folder, tokens, **local) as (done, material):
        engine: Any = done.engine
        metrics = done.compute(done.inputs(material.train, sorted(material.train), "train"), learn=True)
        return metrics, gradient_of(engine.model)


# The padded twin


@dataclass(frozen=True)
class Row:
    """One response alone: its whole text as tokens, and how many of them are unscored."""

    ids: list[int]
    first: int


@dataclass(frozen=True)
class Sums:
    """What a loss may know, one entry a row: sums over scored tokens."""

    logps: Tensor
    reference_logps: Tensor
    kl: Tensor
    tokens: Tensor
    collision: Tensor
    """log sum_v p_v^2 of the policy, a constant."""

    @property
    def logratio(self) -> Tensor:
        return self.logps - self.reference_logps

    def detach(self) -> Sums:
        return Sums(self.logps.detach(), self.reference_logps, self.kl.detach(), self.tokens, self.collision)

    @property
    def mean(self) -> Tensor:
        return self.logps / self.tokens

    @property
    def mean_logratio(self) -> Tensor:
        return self.logratio / self.tokens


def row(unscored: str, response: str, ends: bool, tokenizer: Any) -> Row:
    """Whole text tokenised at once; only texts are used whose border is a token's border."""
    ids = tokenizer(unscored + response)["input_ids"]
    first = len(tokenizer(unscored)["input_ids"])
    assert ids[:first] == tokenizer(unscored)["input_ids"]
    return Row(ids + ([tokenizer.eos_token_id] if ends else []), first)


def padded(model: Any, rows: Sequence[Row], pad: int) -> tuple[Tensor, Tensor]:
    """(log_softmax of all logits, input ids), right-padded, with an attention mask and default positions."""
    longest = max(len(r.ids) for r in rows)
    ids = torch.tensor([r.ids + [pad] * (longest - len(r.ids)) for r in rows])
    mask = torch.tensor([[1] * len(r.ids) + [0] * (longest - len(r.ids)) for r in rows])
    return model(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1), ids


def sums(policy: Any, reference: Any, rows: Sequence[Row], pad: int) -> Sums:
    policy_BLV, ids_BL = padded(policy, rows, pad)
    with torch.no_grad():
        reference_BLV, _ = padded(reference, rows, pad)
    scored = torch.zeros(ids_BL.shape)
    for number, r in enumerate(rows):
        scored[number, r.first : len(r.ids)] = 1
    scored = scored[:, 1:]
    targets = ids_BL[:, 1:, None]
    kl = (reference_BLV.exp() * (reference_BLV - policy_BLV)).sum(-1)[:, :-1]
    collision = policy_BLV.detach().exp().square().sum(-1).log()[:, :-1]
    return Sums(
        logps=(policy_BLV[:, :-1].gather(-1, targets).squeeze(-1) * scored).sum(-1),
        reference_logps=(reference_BLV[:, :-1].gather(-1, targets).squeeze(-1) * scored).sum(-1),
        kl=(kl * scored).sum(-1),
        tokens=scored.sum(-1),
        collision=(collision * scored).sum(-1),
    )


@dataclass(frozen=True)
class Twin:
    """The padded twin's loss and gradient, with what it saw."""

    loss: float
    gradient: Gradient
    chosen: Sums
    rejected: Sums


Formula = Callable[[Sums, Sums, Tensor, Tensor], Tensor]
"""(chosen, rejected, confidence, mismatched log-ratios) -> a loss for each pair."""


def twin(setting: Setting, formula: Formula, attention: str = "sdpa") -> Twin:
    """Mean loss and its gradient by the padded way."""
    return twins(setting, {"": formula}, attention)[""]


def twins(setting: Setting, formulas: Mapping[str, Formula], attention: str = "sdpa") -> dict[str, Twin]:
    """Of several losses, from the same passes."""
    tokenizer = tiny.tokenizer()
    pad = tokenizer.pad_token_id
    reference, policy = (
        make(attention).to(setting.dtype) for make in (setting.reference or setting.make, setting.make)
    )
    moved(policy, setting.move)
    sides: tuple[list[Row], list[Row]] = ([], [])
    mismatched = []
    pairs = [setting.level(p) for p in setting.preferences]
    for number, pair in enumerate(pairs):
        round_the_end = pairs[number + 1 :] + pairs[:number]
        following = next(other for other in round_the_end if other.question != pair.question)
        prompt = setting.template.render(pair.question, pair.history, tokenizer)

        def unscored(context: str, prompt: Any = prompt) -> tuple[str, str]:
            """What is read, and what the response then begins with."""
            return (prompt.text + prompt.joint + context, "") if context else (prompt.text, prompt.joint)

        read, joint = unscored(pair.context)
        sides[0].append(row(read, joint + pair.chosen, pair.chosen_ends, tokenizer))
        sides[1].append(row(read, joint + pair.rejected, pair.rejected_ends, tokenizer))
        read, joint = unscored(following.context)
        mismatched.append(row(read, joint + following.chosen, following.chosen_ends, tokenizer))
    chosen, rejected = (sums(policy, reference, rows, pad) for rows in sides)
    with torch.no_grad():
        point = sums(policy, reference, mismatched, pad).logratio
    confidence = torch.tensor([pair.confidence for pair in pairs])
    found = {}
    for name, formula in formulas.items():
        policy.zero_grad()
        loss = formula(chosen, rejected, confidence, point).mean()
        loss.backward(retain_graph=True)
        found[name] = Twin(loss.item(), gradient_of(policy), chosen.detach(), rejected.detach())
    return found


def dpo(chosen: Sums, rejected: Sums, confidence: Tensor, _: Tensor, beta: float = 0.4) -> Tensor:
    z = beta * (chosen.logratio - rejected.logratio)
    return -confidence * F.logsigmoid(z) - (1 - confidence) * F.logsigmoid(-z)


def tdpo1(chosen: Sums, rejected: Sums, _: Tensor, __: Tensor, beta: float = 0.4) -> Tensor:
    return -F.logsigmoid(beta * (chosen.logratio - rejected.logratio - (rejected.kl - chosen.kl)))


def tdpo2(chosen: Sums, rejected: Sums, _: Tensor, __: Tensor, beta: float = 0.4, alpha: float = 0.5) -> Tensor:
    return -F.logsigmoid(beta * (chosen.logratio - rejected.logratio - alpha * (rejected.kl - chosen.kl.detach())))


def sft(chosen: Sums, _: Sums, __: Tensor, ___: Tensor) -> Tensor:
    return -chosen.logps / chosen.tokens


def kto(chosen: Sums, rejected: Sums, _: Tensor, mismatched: Tensor, beta: float = 0.4) -> Tensor:
    z0 = mismatched.mean().clamp(min=0)
    return 2 - torch.sigmoid(beta * (chosen.logratio - z0)) - torch.sigmoid(beta * (z0 - rejected.logratio))


def nca(chosen: Sums, rejected: Sums, _: Tensor, __: Tensor, beta: float = 0.4) -> Tensor:
    good, bad = beta * chosen.logratio, beta * rejected.logratio
    return -F.logsigmoid(good) - 0.5 * F.logsigmoid(-good) - 0.5 * F.logsigmoid(-bad)


def dpop(chosen: Sums, rejected: Sums, _: Tensor, __: Tensor, beta: float = 0.3, penalty: float = 5.0) -> Tensor:
    fall = (-chosen.logratio).clamp(min=0)
    return -F.logsigmoid(beta * (chosen.logratio - rejected.logratio - penalty * fall))


def simpo(chosen: Sums, rejected: Sums, _: Tensor, __: Tensor, beta: float = 2.0, gamma: float = 1.0) -> Tensor:
    return -F.logsigmoid(beta * chosen.mean - beta * rejected.mean - gamma)


def contrast(chosen: Sums, rejected: Sums, _: Tensor, __: Tensor, beta: float = 0.1) -> Tensor:
    """CPO's preference alone."""
    return -F.logsigmoid(beta * (chosen.logps - rejected.logps))


def cpo(chosen: Sums, rejected: Sums, confidence: Tensor, mismatched: Tensor) -> Tensor:
    return contrast(chosen, rejected, confidence, mismatched) - chosen.mean


def orpo(chosen: Sums, rejected: Sums, _: Tensor, __: Tensor, alpha: float = 0.1) -> Tensor:
    odds = [side.mean.exp() / (1 - side.mean.exp()) for side in (chosen, rejected)]
    return -chosen.mean - alpha * torch.sigmoid((odds[0] / odds[1]).log()).log()


def wpo(chosen: Sums, rejected: Sums, _: Tensor, __: Tensor, beta: float = 0.01) -> Tensor:
    u = sum((side.logps.detach() - side.collision) / side.tokens for side in (chosen, rejected))
    return -torch.as_tensor(u).exp().clamp(max=1) * F.logsigmoid(beta * (chosen.logratio - rejected.logratio))
