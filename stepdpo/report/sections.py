"""What stands below the table, for every task and decoder: the picture, kinds of mistakes, one run against others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from stepdpo.report.focus import focus_sentences
from stepdpo.report.picture import picture
from stepdpo.report.render import clean, escape, markdown_table, show, table
from stepdpo.report.tables import GRADER, EvaluationResult

PICTURE = "Accuracy in percent with its 95 % interval (strict grader):"
MISTAKES = """\
First mistakes of the responses, in percent of the places reached where that kind can be made (made/reached):"""
BY = "Accuracy in percent by {}, with its 95 % interval and the number of problems (strict grader):"
FOCUS = """\
Problem by problem (strict grader; difference ± its standard error; exact two-sided McNemar test, not corrected for the
number of comparisons):"""
Named = Mapping[str, Sequence[EvaluationResult]]
"""The evaluations of every run, by the name that the report calls it."""


@dataclass(frozen=True, slots=True)
class Section:
    """All runs on one task with one decoder; what there is nothing to say about is empty."""

    title: str
    picture: Sequence[str]
    mistakes: Mapping[str, Sequence[str]]
    """Columns by their heads."""
    by: Mapping[str, Mapping[str, Sequence[str]]]
    """Of each property of problems the table by its kinds, as columns by their heads."""
    comparisons: Sequence[str]

    def markdown(self) -> str:
        """For report.md."""
        # An indented block: no name of a run can end it, as it could end a fenced one.
        parts = [f"## {escape(self.title)}"]
        parts += [PICTURE, "\n".join(f"    {line}" for line in self.picture)] if self.picture else []
        parts += [MISTAKES, markdown_table(self.mistakes)] if self.mistakes else []
        for name, columns in self.by.items():
            parts += [BY.format(name), markdown_table(columns)]
        parts += [FOCUS, "\n".join(f"- {escape(text)}" for text in self.comparisons)] if self.comparisons else []
        return "\n" + "\n\n".join(parts) + "\n"

    def print(self) -> None:
        """The same on the terminal."""
        if self.picture:
            show(Text(f"{clean(self.title)}. {PICTURE}"))
            show(Text("\n".join(["", *self.picture, ""]), no_wrap=True))
        if self.mistakes:
            show(Text(MISTAKES))
            show(table(self.mistakes))
        for name, columns in self.by.items():
            show(Text(BY.format(name)))
            show(table(columns))
        if self.comparisons:
            show(Text("\n".join([FOCUS, "", *map(clean, self.comparisons), ""])))


def sections(rows: Sequence[Mapping[str, Any]], runs: Named, focus: str | None) -> list[Section]:
    """A section a task and decoder, of the rows of `report`; those with nothing to say are left out."""
    found = []
    for task, decode in dict.fromkeys((row["task"], row["decode"]) for row in rows):
        own = [row for row in rows if (row["task"], row["decode"], row["grader"]) == (task, decode, GRADER)]
        here = {name: one for name, evaluations in runs.items() for one in evaluations if one.key == (task, decode)}
        chosen = here.pop(focus, None) if focus else None
        section = Section(
            title=", ".join(filter(None, (task, decode))),
            picture=picture(own) if len(own) > 1 else (),
            mistakes=_mistakes(own),
            by=_by(own),
            comparisons=focus_sentences(focus, chosen, here) if focus and chosen else (),
        )
        if section.picture or section.mistakes or section.by:
            found.append(section)
    return found


def _mistakes(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """A row a run that counts its mistakes, a column a kind."""
    counted = {row["run"]: row["mistakes"] for row in rows if row.get("mistakes")}
    kinds = dict.fromkeys(kind for mistakes in counted.values() for kind in mistakes)
    cells = {kind: [_share(mistakes.get(kind)) for mistakes in counted.values()] for kind in kinds}
    return {"run": list(counted), **cells} if counted else {}


def _by(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """A table a property: a row a kind of problem, a column a run."""
    split = {row["run"]: row["by"] for row in rows if row.get("by")}
    tables: dict[str, dict[str, list[str]]] = {}
    for name in dict.fromkeys(name for by in split.values() for name in by):
        runs = {run: by[name] for run, by in split.items() if name in by}
        kinds = list(dict.fromkeys(kind for of_run in runs.values() for kind in of_run))
        cells = {run: [_figures(of_run.get(kind)) for kind in kinds] for run, of_run in runs.items()}
        tables[name] = {name: kinds, **cells}
    return tables


def _figures(kind: Mapping[str, Any] | None) -> str:
    if kind is None:
        return ""
    return f"{100 * kind['accuracy']:.1f} ({100 * kind['ci_low']:.1f}-{100 * kind['ci_high']:.1f}) of {kind['n']}"


def _share(count: Mapping[str, int] | None) -> str:
    if not count or not count["reached"]:
        return ""
    return f"{100 * count['made'] / count['reached']:.1f} ({count['made']}/{count['reached']})"
