"""The verb `check`: read data exactly as training would, and say what is in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from stepdpo.cli import check_display
from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Level, Template, Tokenizer
from stepdpo.core.types import Pair, Preference, Problem
from stepdpo.data import statistics
from stepdpo.data.contamination import Likeness, SharedQuestion, shared_questions
from stepdpo.data.problem_stream import TaskSpec
from stepdpo.data.rows import BadRow, bad_row
from stepdpo.data.templates import NativeTemplate
from stepdpo.data.validation import DatasetSpec, Loaded, enforce, write_quarantine
from stepdpo.runtime.atomic_io import write_json

if TYPE_CHECKING:
    from stepdpo.models.load import ModelSpec  # loads torch, which a look without a model does without


@dataclass(frozen=True)
class CheckReport:
    """What was found."""

    loaded: Loaded
    shared: tuple[SharedQuestion, ...]
    """Training questions that resemble evaluation problems."""
    report: Mapping[str, Any]
    """All of it as JSON values."""


def check(
    dataset: DatasetSpec,
    *,
    level: Level | None = None,
    tasks: Sequence[TaskSpec] = (),
    tokenizer: Tokenizer | None = None,
    examples: int = 4,
    shown: int = 20,
    quarantine: Path | None = None,
    forbid_shared: bool = False,
    max_bad: str | float | None = None,
    console: Console | None = None,
    model: ModelSpec | None = None,
    template: Template = NativeTemplate(),  # noqa: B008 - frozen
    model_pairs: int = 1000,
    out_json: Path | None = None,
) -> CheckReport:
    """Print counts, bad rows, findings, lengths, questions shared with `tasks`, and rendered examples.

    Args:
        dataset: a part of the group `dataset`.
        level: what is scored, in the examples; without it, the step after the prefix.
        tasks: evaluation tasks whose problems must not be trained on.
        tokenizer: lengths are in its tokens; without it, in characters.
        examples: how many preferences to render.
        shown: bad rows, and findings of a kind, that are listed.
        quarantine: where to write the bad rows as JSON Lines.
        forbid_shared: whether questions shared with a task are an error.
        max_bad: share of bad rows that is accepted; None for what the data set says.
        console: where to print.
        model: a part of the group `model`, to say how likely it finds both sides.
        template: a part of the group `template`, for that model.
        model_pairs: how many preferences it is asked about, evenly spread.
        out_json: where to write everything as JSON.

    Raises:
        UserError: after printing, when there are more bad rows than the data set allows, or shared questions
            that are forbidden.
    """
    out = console or Console()
    loaded = dataset.load()
    everything = loaded.preferences + loaded.heldout
    tokenizer = model.tokenizer() if model is not None and tokenizer is None else tokenizer
    if tokenizer is not None:
        loaded = loaded.with_bad(list(_unwritable(loaded, level or _step, template, tokenizer)))
        everything = loaded.preferences + loaded.heldout
        ended = sum(_ends_written(everything, getattr(tokenizer, "eos_token", None)))
        loaded = replace(loaded, counts={**loaded.counts, "sides that end with the end of text (taken off)": ended})
    pairs = map(level or _step, everything)
    ends = [end for p in pairs for end in (p.chosen_ends, p.rejected_ends)[: 2 if p.rejected else 1]]
    named = f"format: {loaded.format}; " if loaded.format else ""
    check_display.line(out, f"{named}the end of text follows {sum(ends):,} of {len(ends):,} sides")
    check_display.counts(out, loaded.counts)
    check_display.bad_rows(out, loaded.bad, shown)
    check_display.findings(out, loaded.findings, shown)
    check_display.lengths(out, everything, tokenizer)
    check_display.contents(out, everything)
    problems = {task.name: task.problems() for task in tasks}
    # Only what is trained on: a held-out question that a task holds too teaches the model nothing.
    shared = tuple(shared_questions((p.question for p in loaded.preferences), problems))
    check_display.shared(out, shared, problems, shown)
    likely: dict[str, Any] | None = None
    if model is not None and everything:
        from stepdpo.cli.check_likelihood import likelihoods  # torch, which a look without a model does without

        scored = [everything[number] for number in _spread(len(everything), model_pairs)]
        likely = likelihoods(scored, level or _step, template, model).summary()
        check_display.likelihoods(out, likely, len(everything))
    for number in _spread(len(everything), examples):
        check_display.example(out, number, (level or _step)(everything[number]))
    if quarantine is not None and loaded.bad:
        write_quarantine(loaded.bad, quarantine)
        check_display.line(out, f"{len(loaded.bad)} bad rows written to {quarantine}")
    report = _report(loaded, shared, problems, tokenizer) | ({"model": likely} if likely else {})
    if out_json is not None:
        write_json(out_json, report)
    # Refused at the very end: who must mend the data has by then seen all that is to be mended.
    enforce(loaded, max_bad)
    copied = sum(item.likeness in (Likeness.EXACT, Likeness.OVERLAP) for item in shared)
    if forbid_shared and copied:
        raise UserError(f"{copied} training questions are problems of {', '.join(problems)}")
    return CheckReport(loaded=loaded, shared=shared, report=report)


def _ends_written(preferences: Sequence[Preference], end: str | None) -> Iterator[bool]:
    """Of every last text of a side, whether it ends with the token that training adds where a response ends."""
    for p in preferences if end else ():
        for side in (p.chosen_rest or p.chosen, p.rejected_rest or p.rejected):
            yield side.rstrip().endswith(str(end))


def _unwritable(loaded: Loaded, level: Level, template: Template, tokenizer: Tokenizer) -> Iterator[BadRow]:
    """Rows that training would leave out: control tokens in them, or turns that the chat template refuses."""
    from stepdpo.tokens.tokenization import refusals  # torch, which a look without a tokenizer does without

    # Lengths are told of tokenizers without a chat template too, and nothing is rendered then.
    rendered = (
        template if not isinstance(template, NativeTemplate) or getattr(tokenizer, "chat_template", None) else None
    )
    everything = (*loaded.preferences, *loaded.heldout)
    reasons = refusals(map(level, everything), rendered, tokenizer)
    for preference, place, reason in zip(everything, (*loaded.places, *loaded.heldout_places), reasons, strict=False):
        if reason:
            yield bad_row(place, reason, preference.question)


def _report(
    loaded: Loaded,
    shared: Sequence[SharedQuestion],
    problems: Mapping[str, Sequence[Problem]],
    tokenizer: Tokenizer | None,
) -> dict[str, Any]:
    """What was found, as JSON values."""
    everything = loaded.preferences + loaded.heldout
    lengths = statistics.sizes(everything, tokenizer) if everything else {}
    return {
        "counts": dict(loaded.counts),
        "bad": [{"place": row.place, "reason": row.reason} for row in loaded.bad],
        "doubles": statistics.duplicates(everything),
        "unit": "tokens" if tokenizer is not None else "characters",
        "lengths": {name: statistics.summary(sizes) for name, sizes in lengths.items()},
        "steps": {str(step): count for step, count in statistics.steps(everything).items()},
        "values": statistics.value_summary(everything),
        "labels": statistics.label_summary(everything),
        "tasks": {task: len(found) for task, found in problems.items()},
        "shared": [{**asdict(item), "likeness": item.likeness.name.lower()} for item in shared],
    }


def _step(preference: Preference) -> Pair:
    """The step after the shared prefix."""
    return Pair(
        question=preference.question,
        context=preference.prefix,
        chosen=preference.chosen,
        rejected=preference.rejected,
        history=preference.history,
    )


def _spread(total: int, wanted: int) -> list[int]:
    """`wanted` numbers below `total`, evenly spread."""
    return sorted({i * total // wanted for i in range(wanted)}) if total and wanted > 0 else []
