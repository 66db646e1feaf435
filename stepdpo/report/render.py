"""Rows -> text: tables for the terminal, for report.md and for report.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from stepdpo.evaluation.statistics import counted
from stepdpo.runtime.atomic_io import encode

Rows = Sequence[Mapping[str, Any]]
CELLS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "run": lambda row: str(row["run"]),
    "algo": lambda row: str(row["algo"]),
    "level": lambda row: " ".join(filter(None, [row["level"], row["prefix"] and f"({row['prefix']})"])),
    "template": lambda row: str(row["template"]),
    "task": lambda row: str(row["task"]),
    "decode": lambda row: str(row["decode"]),
    "grader": lambda row: str(row["grader"]),
    "accuracy": lambda row: _accuracy(row),
    "95 %": lambda row: f"{_percent(row['ci_low'])}-{_percent(row['ci_high'])}",
    "base": lambda row: _percent(row["base_accuracy"]),
    "delta": lambda row: _percent(row["delta"], sign="+"),
    "p": lambda row: _p_value(row),
    "unparsed": lambda row: counted(row["unparsed"]),
    "truncated": lambda row: counted(row["truncated"]),
    "tokens": lambda row: f"{row['mean_tokens']:.0f}",
}
"""The columns people read; report.json has all of them, unrounded."""
LABELS = ("a", "b", "run", "algo", "level", "template", "task", "decode", "grader")
LEGEND = """\
Accuracies in percent with Wilson 95 % intervals, over several seeds with those of a bootstrap over problems. delta:
difference to the base on the problems both have answered, in percentage points; p: exact two-sided McNemar test on the
problems that only one of the two solves, or a paired bootstrap over problems where they have several responses or
seeds; not corrected for the number of rows. unparsed: responses without an answer; truncated: responses cut at the
token limit.
"""


def clean(text: str) -> str:
    """Text that can neither steer a terminal nor turn its reading order."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def show(table: RenderableType) -> None:
    """Print to the terminal; into a file or a pipe, wide enough that nothing wraps."""
    console = Console()
    # A file has no width, and rich would take 80 columns for it.
    if not console.is_terminal:
        console.width = max(console.width, 200)
    console.print(table)


def terminal(rows: Rows) -> Table:
    """A rich table of the rows of `report`; where the graders agree on a run, one line is enough."""
    graders: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        line = tuple("" if name == "grader" else cell(row) for name, cell in CELLS.items())
        graders.setdefault(line, []).append(CELLS["grader"](row))
    columns = dict(zip(CELLS, map(list, zip(*graders, strict=True)), strict=True))
    return table({**columns, "grader": [" and ".join(dict.fromkeys(names)) for names in graders.values()]})


def comparison(rows: Rows) -> Table:
    """A rich table of the rows of `compare_runs`."""
    return table({
        **{name: [str(row[name]) for row in rows] for name in ("a", "b", "task", "decode", "grader", "n")},
        "of a": [_percent(row["accuracy_a"]) for row in rows],
        "of b": [_percent(row["accuracy_b"]) for row in rows],
        "gained": [str(row["gained"]) for row in rows],
        "lost": [str(row["lost"]) for row in rows],
        "delta": [f"{_percent(row['delta'], sign='+')} ± {_percent(row['stderr'])}" for row in rows],
        "p": [_p_value(row) for row in rows],
    })  # fmt: skip


def markdown(rows: Rows) -> str:
    """The beginning of report.md."""
    if not rows:
        return "# Report\n"
    cells = {name: [cell(row) for row in rows] for name, cell in CELLS.items()}
    return f"# Report\n\n{markdown_table(cells)}\n\n{LEGEND}"


def as_json(rows: Rows) -> str:
    """report.json: the rows as they are."""
    return encode([dict(row) for row in rows], indent=2) + "\n"


def markdown_table(cells: Mapping[str, Sequence[str]]) -> str:
    """Columns by their heads."""
    rows = [_line([escape(text) for text in row]) for row in zip(*cells.values(), strict=True)]
    return "\n".join([_line([escape(name) for name in cells]), _line(["---"] * len(cells)), *rows])


def table(cells: Mapping[str, Sequence[str]]) -> Table:
    """What all rows have in common stands above. Cells are plain text: markup in a name is not obeyed."""
    cells = {clean(name): [clean(text) for text in column] for name, column in cells.items()}
    count = len(next(iter(cells.values())))
    common = [name for name in LABELS if name in cells and count > 1 and len(set(cells[name])) == 1]
    title = ", ".join(f"{name} {cells[name][0]}" for name in common if cells[name][0])
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left", title=Text(title) if title else None)
    shown = [name for name in cells if name not in common]
    for name in shown:
        table.add_column(Text(name), overflow="fold")
    for values in zip(*(cells[name] for name in shown), strict=True):
        table.add_row(*map(Text, values))
    return table


def _p_value(row: Mapping[str, Any]) -> str:
    return "" if row["p_value"] is None else f"{row['p_value']:.2g}"


def _accuracy(row: Mapping[str, Any]) -> str:
    seeds = f", {row['seeds']} seeds" if row.get("seeds") else ""
    return f"{_percent(row['accuracy'])} ± {_percent(row['stderr'])} ({counted(row['correct'])}/{row['n']}{seeds})"


def _percent(share: float | None, sign: str = "") -> str:
    return "" if share is None else f"{100 * share:{sign}.1f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    # Names are a user's, and a report is opened in programs that obey markup.
    text = clean(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join("\\" + letter if letter in "\\|`*[]" else letter for letter in text)
