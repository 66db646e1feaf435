"""The verb: run folders in, `report.md`, `report.json` and the same on the terminal out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError, nearest
from stepdpo.evaluation.statistics import GRADERS
from stepdpo.report.focus import SIGNIFICANCE
from stepdpo.report.inspected import Inspected, inspections
from stepdpo.report.measured import Measured, measured
from stepdpo.report.render import as_json, clean, comparison, escape, markdown, show, terminal
from stepdpo.report.sections import Section, sections
from stepdpo.report.tables import (
    GRADER,
    EvaluationResult,
    compare_paired,
    find_base,
    read_evaluations,
    run_rows,
    short_names,
)
from stepdpo.runtime.atomic_io import write_text
from stepdpo.runtime.run_folder import METRICS, passed_bounds, whole_lines


def report(
    runs: Sequence[Path], base: Path | None, out: Path, control: Path | None = None, focus: Path | None = None
) -> list[dict[str, Any]]:
    """Report on `runs` against `base` (any folder with eval/; None: the one a run names, else `base` beside it).

    Each base has rows of its own, first. With a `control`, every other run is held against it as well; with a `focus`,
    which is one of the runs, that one against every other, bases included.
    """
    if not runs:
        raise UserError("no runs to report on: name at least one run folder")
    bases: dict[Path, list[EvaluationResult]] = {}
    held: list[tuple[Path, list[EvaluationResult], list[EvaluationResult]]] = []
    for run in runs:
        evaluations = read_evaluations(run)
        against = base or find_base(run, evaluations)
        if against:
            # One base under two names (a link, a relative path) is read, and listed, once.
            against = against.resolve()
            bases.setdefault(against, read_evaluations(against))
        held.append((run, evaluations, bases[against] if against else []))
    # A base that is reported on itself has its rows there, held against its own base.
    own = {run.resolve(): run for run in runs}
    held = [*((path, found, []) for path, found in bases.items() if path not in own), *held]
    names = short_names([run for run, _, _ in held])
    rows = [row for run, evaluations, base_of in held for row in run_rows(names[run], run, evaluations, base_of)]
    if focus and focus.resolve() not in own:
        raise UserError(f"--focus: {focus} is none of the runs; {nearest(focus.name, [run.name for run in runs])}")
    chosen = names[own[focus.resolve()]] if focus else None
    below: list[Section | Measured | Inspected] = [
        *sections(rows, {names[run]: found for run, found, _ in held}, chosen),
        *measured(names),
    ]
    below += [one for run in names for one in inspections(run, names[run])]
    if rows:
        show(terminal(rows))
    for section in below:
        section.print()
    warned = [sentence for run in names if (sentence := _warned(run, names[run]))]
    print(*warned, sep="\n", end="\n" if warned else "", flush=True)
    sentences = _against_control([run for run in runs if run != control], control) if control else []
    guarded = "\n" + "\n".join(f"- {escape(sentence)}" for sentence in warned) + "\n" if warned else ""
    controlled = "\n" + "\n".join(f"- {sentence}" for sentence in sentences) + "\n" if sentences else ""
    out.mkdir(parents=True, exist_ok=True)
    sections_below = "".join(section.markdown() for section in below)
    write_text(out / "report.md", markdown(rows) + guarded + controlled + sections_below)
    write_text(out / "report.json", as_json(rows))
    return rows


def _warned(run: Path, name: str) -> str:
    """What the guard of a training found; empty where it found nothing, or there was none."""
    seen = passed_bounds(whole_lines(run / METRICS))
    bounds = ", ".join(f"{bound} from update {update:,} on" for bound, update in seen.items())
    return f"{clean(name)}: its training passed bounds of its guard ({clean(bounds)})" if bounds else ""


def _against_control(runs: Sequence[Path], control: Path) -> list[str]:
    """One sentence a run and task (strict grader): what the run has over its control, said as it is."""
    sentences = []
    for run in runs:
        for row in compare_runs(control, run):
            if row["grader"] != GRADER:
                continue
            better, significant = row["delta"] > 0, row["p_value"] < SIGNIFICANCE
            verdict = (
                ("beats its control" if better else "loses to its control") if significant else "no sure difference"
            )
            sentences.append(
                f"{row['task']}: {run.name} {row['accuracy_b']:.1%}, control {control.name} {row['accuracy_a']:.1%}, "
                f"n = {row['n']}, difference {100 * row['delta']:+.1f} ± {100 * row['stderr']:.1f} points, "
                f"paired p = {row['p_value']:.2g}: {verdict}"
            )
    print(*sentences, sep="\n", flush=True)
    return sentences


def compare_runs(a: Path, b: Path) -> list[dict[str, Any]]:
    """Compare two runs on what both were evaluated on; delta is `b` minus `a` (control first)."""
    first, second = ({evaluation.key: evaluation for evaluation in read_evaluations(run)} for run in (a, b))
    shared = [key for key in first if key in second]
    if not shared:
        here, there = " ".join(next(iter(first))), [" ".join(key) for key in second]
        raise UserError(f"{a.name} and {b.name} share no task and decoder: {here!r}; in {b.name}: {nearest('', there)}")
    rows: list[dict[str, Any]] = []
    for key in shared:
        for grader in GRADERS:
            pair = compare_paired(first[key], second[key], grader)
            rows.append({
                "a": a.name, "b": b.name, "task": key[0], "decode": key[1], "grader": grader, "n": pair.n,
                "accuracy_a": pair.base_correct / pair.n, "accuracy_b": pair.correct / pair.n,
                "gained": pair.gained, "lost": pair.lost,
                "delta": pair.delta, "stderr": pair.stderr, "p_value": pair.p_value,
            })  # fmt: skip
    show(comparison(rows))
    return rows
