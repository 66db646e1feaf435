"""The verb `check`: read data exactly as training would, and say what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from omegaconf import OmegaConf
from rich.console import Console

import stepdpo
from stepdpo.cli import check_display as display
from stepdpo.core.config import build
from stepdpo.core.errors import UserError, nearest
from stepdpo.core.protocols import Tokenizer
from stepdpo.core.types import Pair, Preference, Problem
from stepdpo.data import statistics as survey
from stepdpo.data.contamination import Likeness, SharedQuestion, shared_questions
from stepdpo.data.dataset import Dataset
from stepdpo.data.validation import Loaded, enforce, write_quarantine
from stepdpo.runtime.atomic_io import write_json


class Loads(Protocol):
    """Any part of the config group `dataset`."""

    def load(self) -> Loaded:
        """Read and validate everything."""
        ...


class Poses(Protocol):
    """Any part of the config group `task`."""

    @property
    def name(self) -> str:
        """What results are filed under."""
        ...

    def problems(self) -> list[Problem]:
        """Every problem."""
        ...


@dataclass(frozen=True)
class Checked:
    """What was found."""

    loaded: Loaded
    shared: tuple[SharedQuestion, ...]
    """Training questions that resemble evaluation problems."""
    report: Mapping[str, Any]
    """All of it as JSON values."""


def check(
    dataset: Loads | str,
    *,
    level: Callable[[Preference], Pair] | None = None,
    tasks: Sequence[Poses] = (),
    tokenizer: Tokenizer | None = None,
    examples: int = 4,
    shown: int = 20,
    quarantine: Path | None = None,
    forbid_shared: bool = False,
    max_bad: str | float | None = None,
    console: Console | None = None,
    model: Any = None,
    template: Any = None,
    weighed: int = 1000,
    out_json: Path | None = None,
) -> Checked:
    """Print counts, bad rows, findings, lengths, questions shared with `tasks`, and rendered examples.

    Args:
        dataset: a part with `load()`, or what `find_dataset` understands.
        level: what is scored, in the examples; without it, the step after the prefix.
        tasks: evaluation tasks whose problems must not be trained on.
        tokenizer: lengths are in its tokens; without it, in characters.
        examples: how many preferences to render.
        shown: bad rows, and findings of a kind, that are listed.
        quarantine: where to write the bad rows as JSON Lines.
        max_bad: share of bad rows that is accepted; None for what the data set says.
        forbid_shared: whether questions shared with a task are an error.
        console: where to print.
        model: a part of the group `model`, to say how likely it finds both sides.
        template: a part of the group `template`, for that model.
        weighed: how many preferences it is asked about, evenly spread.
        out_json: where to write everything as JSON.

    Raises:
        UserError: after printing, when there are more bad rows than the data set allows, or shared questions
            that are forbidden.
    """
    out = console or Console()
    loaded = (find_dataset(dataset) if isinstance(dataset, str) else dataset).load()
    everything = loaded.preferences + loaded.heldout
    display.counts(out, loaded.counts)
    display.bad_rows(out, loaded.bad, shown)
    display.findings(out, loaded.findings, shown)
    tokenizer = model.tokenizer() if model is not None and tokenizer is None else tokenizer
    display.lengths(out, everything, tokenizer)
    display.contents(out, everything)
    posed = {task.name: task.problems() for task in tasks}
    shared = tuple(shared_questions((p.question for p in loaded.preferences), posed))
    display.shared(out, shared, posed, shown)
    likely: dict[str, Any] | None = None
    if model is not None and everything:
        from stepdpo.cli.check_likelihood import likelihoods

        asked = [everything[number] for number in _spread(len(everything), weighed)]
        likely = likelihoods(asked, level or _step, template, model).summary()
        display.likelihoods(out, likely, len(everything))
    for number in _spread(len(everything), examples):
        display.example(out, number, (level or _step)(everything[number]))
    if quarantine is not None and loaded.bad:
        write_quarantine(loaded.bad, quarantine)
        display.line(out, f"{len(loaded.bad)} bad rows written to {quarantine}")
    report = _report(loaded, shared, posed, tokenizer) | ({"model": likely} if likely else {})
    if out_json is not None:
        write_json(out_json, report)
    enforce(loaded, max_bad)
    copied = sum(item.likeness in (Likeness.EXACT, Likeness.OVERLAP) for item in shared)
    if forbid_shared and copied:
        raise UserError(f"{copied} training questions are problems of {', '.join(posed)}")
    return Checked(loaded=loaded, shared=shared, report=report)


def _report(
    loaded: Loaded,
    shared: Sequence[SharedQuestion],
    posed: Mapping[str, Sequence[Problem]],
    tokenizer: Tokenizer | None,
) -> dict[str, Any]:
    """What was found, as JSON values."""
    everything = loaded.preferences + loaded.heldout
    lengths = survey.sizes(everything, tokenizer) if everything else {}
    return {
        "counts": dict(loaded.counts),
        "bad": [{"place": row.place, "reason": row.reason} for row in loaded.bad],
        "doubles": survey.duplicates(everything),
        "unit": "tokens" if tokenizer is not None else "characters",
        "lengths": {name: survey.summary(sizes) for name, sizes in lengths.items()},
        "steps": {str(step): count for step, count in survey.steps(everything).items()},
        "values": survey.value_summary(everything),
        "tasks": {task: len(problems) for task, problems in posed.items()},
        "shared": [{**asdict(item), "likeness": item.likeness.name.lower()} for item in shared],
    }


def find_dataset(data: str) -> Loads:
    """A data set by the name of its conf file, or by a path or hub id (its format is then told from the columns)."""
    package = Path(stepdpo.__file__).resolve().parent
    folder = next((f / "dataset" for f in (package / "conf", package.parent / "conf") if f.is_dir()), package)
    names = sorted(p.stem for p in folder.glob("*.yaml"))
    if data in names:
        part: Loads = build(OmegaConf.load(folder / f"{data}.yaml"), where="dataset")
        return part
    if "/" in data or "." in data or Path(data).exists():
        return Dataset(path=data)
    raise UserError(f"{data}: neither a file nor a data set of conf/dataset; {nearest(data, names)}")


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
