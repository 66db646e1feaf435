"""The verb `inspect`: implicit rewards of tokens and steps, and whether the lowest step is the first wrong one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console

from stepdpo.cli import inspect_display
from stepdpo.cli.inspect_responses import Responses, of_data, of_task
from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Level, Template
from stepdpo.core.ranges import at_least, positive
from stepdpo.core.types import Sampling
from stepdpo.data.problem_stream import TaskSpec
from stepdpo.data.template_card import resolve
from stepdpo.data.validation import DatasetSpec, enforce
from stepdpo.evaluation.localisation import ScoredSteps, localisation
from stepdpo.evaluation.statistics import wilson
from stepdpo.generation.transformers import TransformersSampler
from stepdpo.models import value_head
from stepdpo.models.attention.registry import Attention, register
from stepdpo.models.implicit_rewards import ResponseRewards, implicit_rewards
from stepdpo.models.load import DTYPES, ModelSpec, Pretrained, without_progress_bars
from stepdpo.models.logprobs import HeadMemory
from stepdpo.models.lora import Adapter, NoAdapter
from stepdpo.models.scorer import Scorer
from stepdpo.models.scorer_spec import ScorerSpec
from stepdpo.runtime.atomic_io import write_json, write_jsonl
from stepdpo.runtime.progress import Progress
from stepdpo.runtime.run_folder import INSPECTED, SUMMARY
from stepdpo.runtime.secrets import redact
from stepdpo.tokens.step_scores import Squash, ValueHeadSpec
from stepdpo.training.engine.settings import Device, Dtype, pick_device, pick_dtype

MIDDLE = {Squash.tanh: 0.0, Squash.sigmoid: 0.5}
"""The value below which a step is wrong rather than right."""


class Writer(Enum):
    """Who answers a task's problems."""

    policy = "policy"
    reference = "reference"
    """So that runs from one base are asked about the same texts."""


@dataclass(frozen=True)
class Inspection:
    """What is looked at, and what of it is told; the parts are built from their own config groups."""

    level: Level
    template: Template
    dataset: DatasetSpec | None = None
    task: TaskSpec | None = None
    checkpoint: str | None = None
    reference_model: str | None = None
    limit: int | None = 200
    writer: Writer = Writer.policy
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 512
    seed: int = 0
    beta: float | None = None
    show: int = 4
    dtype: Dtype = Dtype.auto
    device: Device = Device.auto

    def __post_init__(self) -> None:
        at_least(1, limit=self.limit, samples=self.samples, max_tokens=self.max_tokens)
        at_least(0, temperature=self.temperature, seed=self.seed, show=self.show)
        positive(beta=self.beta)
        if self.samples > 1 and not self.temperature:
            raise ValueError(f"samples={self.samples} at temperature 0 are all the same: set temperature=1, say")
        if self.dataset is not None and self.task is not None:
            raise ValueError("dataset and task are two ways of naming what is looked at: give one of them")


@dataclass(frozen=True)
class InspectedRun:
    """What a run has to say about itself."""

    name: str
    model: Path
    """The folder of the policy."""
    start: ModelSpec
    """What it was held against."""
    adapter: Adapter
    """It may have a base of its own, which the reference is then held in too."""
    dataset: DatasetSpec | None
    """What it was trained on."""
    beta: float | None
    """Of its loss; None where that has none."""
    max_length: int


def inspect(
    spec: Inspection, run: InspectedRun, folder: Path, name: str, console: Console | None = None
) -> dict[str, Any]:
    """Score what is to be looked at, print it, and write `inspect.jsonl` and `summary.json` into `folder`.

    `name`: of what is looked at. Returns the summary. Raises UserError for bad input.
    """
    without_progress_bars()
    device = pick_device(spec.device)
    policy_spec, reference_spec = _specs(spec, run, device)
    tokenizer = policy_spec.tokenizer()
    template, warning = resolve(spec.template, run.model, tokenizer)
    if warning:
        print(f"warning: {warning}", flush=True)
    responses = _responses(spec, run, template)
    beta = spec.beta or run.beta or 1.0
    dtype = DTYPES[pick_dtype(spec.dtype, device).value]
    policy, reference = (
        build(dtype, lambda _: nullcontext()).to(device).eval()
        for build in (policy_spec.build_policy, reference_spec.build_reference)
    )
    with Progress("response" if spec.task else "pair", len(responses.pairs)) as progress:
        found, left_out = implicit_rewards(
            responses.pairs, policy, reference, beta, template, tokenizer, device, run.max_length, progress.advance
        )
    if not found:
        why = "".join(f"\n  {count:,} {reason}" for reason, count in (left_out + responses.left_out).items())
        raise UserError(f"{name}: nothing of it can be scored{why}")
    about = {
        "of": name, "kind": "task" if spec.task else "dataset", "run": run.name, "policy": str(run.model),
        "reference": spec.reference_model or str(getattr(run.start, "path", run.start.source)),
        "template": template.name, "beta": beta, "beta_from": _beta_from(spec, run),
        "dtype": str(dtype).removeprefix("torch."),
    }  # fmt: skip
    summary = {
        **about,
        **_figures(list(found.values()), _middle(policy)),
        "left_out": dict(left_out + responses.left_out),
    }
    rows = [_row(responses.places[number], responses.pairs[number].question, sides) for number, sides in found.items()]
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / INSPECTED, rows)
    write_json(folder / SUMMARY, redact(summary))
    inspect_display.inspection(console or Console(), summary, rows, spec.show)
    print(f"{len(rows):,} in {folder / INSPECTED}, the figures in {folder / SUMMARY}", flush=True)
    return summary


def _specs(spec: Inspection, run: InspectedRun, device: Any) -> tuple[ScorerSpec, ScorerSpec]:
    """(the policy, the reference); as a training would score them."""
    trained = Pretrained(str(run.model))
    start = Pretrained(spec.reference_model) if spec.reference_model else run.start
    head = ValueHeadSpec(value_head.read(run.model)[1]) if (run.model / value_head.FILE).is_file() else None
    given: dict[str, Any] = {
        "attention": register(Attention.auto, device), "max_length": run.max_length, "head_memory": HeadMemory.auto,
        "with_kl": False, "computed": DTYPES[pick_dtype(spec.dtype, device).value], "device": device,
    }  # fmt: skip
    # The reference is named for both, so that one with other tokens is refused; it is loaded by the second.
    return (
        ScorerSpec(policy=trained, reference=start, adapter=NoAdapter(), value_head=head, **given),
        ScorerSpec(policy=start, reference=None, adapter=run.adapter, **given),
    )


def _responses(spec: Inspection, run: InspectedRun, template: Template) -> Responses:
    if spec.task is not None:
        start = Pretrained(spec.reference_model) if spec.reference_model else run.start
        writer = start if spec.writer is Writer.reference else Pretrained(str(run.model))
        sampling = Sampling(spec.samples, spec.temperature, 1.0, spec.max_tokens, (), spec.seed)
        sampler = TransformersSampler(device=spec.device.value)
        return of_task(spec.task, writer, sampler, template, sampling, spec.limit)
    dataset = spec.dataset or run.dataset
    if dataset is None:
        raise UserError(f"{run.name}: its config.yaml names no data; give dataset=FILE, or task=tinymath")
    loaded = dataset.load()
    enforce(loaded)
    return of_data(loaded, spec.level, spec.limit, heldout_first=spec.dataset is None)


def _beta_from(spec: Inspection, run: InspectedRun) -> str:
    if spec.beta:
        return "beta="
    return "algo.beta" if run.beta else "1, as its loss has none"


def _middle(policy: Scorer) -> float | None:
    head: Any = policy.value_head
    return None if head is None else MIDDLE[head.spec.squash]


def _figures(found: Sequence[Sequence[ResponseRewards]], middle: float | None) -> dict[str, Any]:
    """Margins of the pairs, and how often the first wrong step is named."""
    margins = [sides[0].sum - sides[1].sum for sides in found if len(sides) > 1]
    figures: dict[str, Any] = {"n": len(found)}
    if margins:
        above = sum(margin > 0 for margin in margins)
        low, high = wilson(above, len(margins))
        accuracy = {"above_0": above, "share": above / len(margins), "ci_low": low, "ci_high": high}
        figures["margins"] = {"n": len(margins), "mean": sum(margins) / len(margins), **accuracy}
    return {**figures, "localisation": localisation(list(_wrong(found)), middle)}


def _wrong(found: Sequence[Sequence[ResponseRewards]]) -> Iterator[ScoredSteps]:
    """Of pairs the rejected side, else the only response, where its first wrong step is known."""
    for side in (sides[-1] for sides in found):
        if side.first_error is not None:
            yield ScoredSteps(
                sums=tuple(step.sum for step in side.steps),
                means=tuple(step.mean for step in side.steps),
                first_error=side.first_error,
                values=tuple(step.value for step in side.steps if step.value is not None),
            )


def _row(place: str, question: str, sides: Sequence[ResponseRewards]) -> dict[str, Any]:
    """A line of inspect.jsonl."""
    named = dict(zip(("chosen", "rejected") if len(sides) > 1 else ("response",), sides, strict=True))
    margin = {"margin": sides[0].sum - sides[1].sum} if len(sides) > 1 else {}
    return {"place": place, "question": question, **margin, **{name: _side(side) for name, side in named.items()}}


def _side(side: ResponseRewards) -> Mapping[str, Any]:
    return {
        "sum": side.sum,
        "first_error": side.first_error,
        "steps": [
            {
                "text": step.text, "sum": step.sum, "mean": step.mean, "label": step.label,
                **({} if step.value is None else {"value": step.value}),
                "tokens": [list(pair) for pair in zip(step.tokens, step.rewards, strict=True)],
            }
            for step in side.steps
        ],
    }  # fmt: skip
