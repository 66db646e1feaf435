"""What `stepdpo inspect` found of a run, in few words: how often the first wrong step is named, and the first pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.report.render import clean, escape, markdown_table, show, table
from stepdpo.runtime.atomic_io import read_json
from stepdpo.runtime.run_folder import INSPECT, INSPECTED, SUMMARY, whole_lines

PAIRS = 2
"""How many are shown."""
RULE = "lowest_sum"
"""The one that is told; summary.json has them all."""
KINDS = ("chosen", "rejected", "response")


@dataclass(frozen=True, slots=True)
class Inspected:
    """One `inspect/<data>/` folder of a run."""

    title: str
    sentence: str
    pairs: Sequence[tuple[str, Mapping[str, Sequence[str]]]]
    """Where each comes from, and its steps as columns by their heads."""

    def markdown(self) -> str:
        """For report.md."""
        parts = [f"## {escape(self.title)}", escape(self.sentence)]
        for place, cells in self.pairs:
            parts += [escape(place), markdown_table(cells)]
        return "\n" + "\n\n".join(parts) + "\n"

    def print(self) -> None:
        """The same on the terminal."""
        print(f"{clean(self.title)}. {clean(self.sentence)}", flush=True)
        for place, cells in self.pairs:
            print(clean(place), flush=True)
            show(table(cells))


def inspections(run: Path, name: str) -> list[Inspected]:
    """Everything that was inspected of a run; UserError for a folder whose figures cannot be read."""
    return [_read(path.parent, name) for path in sorted((run / INSPECT).glob(f"*/{SUMMARY}"))]


def _read(folder: Path, name: str) -> Inspected:
    summary = read_json(folder / SUMMARY)
    try:
        sentence = _sentence(summary)
        title = f"{name}: implicit rewards on {folder.name}"
        pairs = [(_head(row), _cells(row)) for row in islice(whole_lines(folder / INSPECTED), PAIRS)]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: not what `stepdpo inspect` writes ({error})") from error
    return Inspected(title, sentence, pairs)


def _sentence(summary: Mapping[str, Any]) -> str:
    said = []
    if margins := summary.get("margins"):
        said.append(
            f"The chosen side has the larger reward in {_percent(margins)} of {margins['n']} pairs, by "
            f"{margins['mean']:+.3f} on average."
        )
    found = summary["localisation"]
    if found["n"]:
        rate = found["rules"][RULE]
        said.append(
            f"The step of the lowest reward is the first wrong one in {_percent(rate)} of {found['n']} wrong solutions "
            f"(chance {100 * found['chance']:.1f} %, always the last step "
            f"{100 * found['rules']['always_last']['share']:.1f} %)."
        )
    return " ".join(said) or f"{summary['n']} responses, of which no first wrong step is known."


def _percent(rate: Mapping[str, Any]) -> str:
    return f"{100 * rate['share']:.1f} % (95 %: {100 * rate['ci_low']:.1f}-{100 * rate['ci_high']:.1f})"


def _head(row: Mapping[str, Any]) -> str:
    margin = f", margin {row['margin']:+.3f}" if "margin" in row else ""
    return f"{row['place']}{margin}: {' '.join(str(row['question']).split())}"


def _cells(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """A row a step; a side's reward and its text are columns. The first wrong step is marked."""
    sides = {kind: row[kind] for kind in KINDS if kind in row}
    steps = list(zip_longest(*(side["steps"] for side in sides.values())))
    cells = {"step": [str(number) for number in range(1, len(steps) + 1)]}
    for place, (kind, side) in enumerate(sides.items()):
        column = [step[place] for step in steps]
        cells[f"{kind} {side['sum']:+.3f}"] = [f"{step['sum']:+.3f}" if step else "" for step in column]
        cells[f"{kind}'s text"] = list(_texts(column, side["first_error"]))
    return cells


def _texts(steps: Sequence[Mapping[str, Any] | None], wrong: int | None) -> Iterator[str]:
    for number, step in enumerate(steps):
        text = " ".join(step["text"].split()) if step else ""
        yield f"{text} (first wrong step)" if number == wrong else text
