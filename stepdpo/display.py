"""What `check` prints. Data are never markup: control characters are spelt out, brackets stay brackets."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepdpo.dataset import BadRow, Finding
from stepdpo.dataset.overlap import Shared
from stepdpo.protocols import Tokenizer
from stepdpo.records import Pair, Preference, Problem

BARS = " ▁▂▃▄▅▆▇█"
BINS = 24
EXCERPT = 100
"""Characters of a question that a list shows."""
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def clean(text: str) -> str:
    r"""Text that is safe on a terminal: control and direction characters are spelt out (`\x1b`), lines kept."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _UNSAFE else ascii(c)[1:-1] for c in text)


def line(out: Console, text: str, style: str = "") -> None:
    """One line of plain text, cut nowhere."""
    out.print(Text(clean(text), style=style), soft_wrap=True)


def counts(out: Console, numbers: Mapping[str, int]) -> None:
    """Every count that is not 0, and the first five in any case."""
    table = Table("count", "", show_header=False, box=None)
    for i, (name, number) in enumerate(numbers.items()):
        if number or i < 5:
            table.add_row(Text(f"{number:,}", justify="right"), Text(clean(name)))
    out.print(table)


def bad_rows(out: Console, rows: Sequence[BadRow], shown: int) -> None:
    """Bad rows with place and reason."""
    if not rows:
        return
    line(out, f"\n{len(rows):,} rows cannot be used", style="bold red")
    for row in rows[:shown]:
        line(out, f"  {row.place}: {row.reason}")
    _more(out, len(rows) - shown)


def findings(out: Console, found: Sequence[Finding], shown: int) -> None:
    """Odd preferences, by kind."""
    for kind, count in Counter(finding.kind for finding in found).items():
        line(out, f"\n{count:,} x {kind} (kept)", style="bold yellow")
        for finding in [f for f in found if f.kind == kind][:shown]:
            line(out, f"  {', '.join(finding.places)}: {_excerpt(finding.question)}")
        _more(out, count - shown)


def lengths(out: Console, preferences: Sequence[Preference], tokenizer: Tokenizer | None) -> None:
    """Quantiles and a histogram of the lengths of the parts and of whole solutions."""
    parts = {
        "prefix": [p.prefix for p in preferences],
        "chosen": [p.chosen for p in preferences],
        "rejected": [p.rejected for p in preferences],
        "whole chosen": [p.prefix + p.chosen + p.chosen_rest for p in preferences],
        "whole rejected": [p.prefix + p.rejected + p.rejected_rest for p in preferences],
    }
    unit = "characters" if tokenizer is None else "tokens"
    table = Table(unit, "empty", "median", "90 %", "99 %", "longest", "0 to longest", title="\nLengths", box=None)
    for name, texts in parts.items():
        sizes = sorted(_sizes(texts, tokenizer))
        if sizes and sizes[-1]:
            quantiles = [sizes[min(len(sizes) - 1, int(q * len(sizes)))] for q in (0.5, 0.9, 0.99, 1)]
            numbers = [str(n) for n in (sum(not text for text in texts), *quantiles)]
            table.add_row(name, *numbers, Text(histogram(sizes)))
    out.print(table)


def shared(out: Console, found: Sequence[Shared], tasks: Mapping[str, Sequence[Problem]], shown: int) -> None:
    """Training questions that resemble problems of evaluation tasks."""
    for task, problems in tasks.items():
        here = [item for item in found if item.task == task]
        line(out, f"\n{task}: {len(problems):,} problems, {len(here):,} training questions resemble one", style="bold")
        for likeness, count in Counter(item.likeness for item in here).items():
            line(out, f"  {count:,} x {likeness.value}")
            for item in [i for i in here if i.likeness is likeness][:shown]:
                line(out, f"    {item.problem_id}: {_excerpt(item.question)}")
            _more(out, count - shown)


def example(out: Console, number: int, pair: Pair) -> None:
    """One preference as the loss sees it: what stands between « and » is scored, the rest is only read."""
    line(out, f"\nPreference {number}: scored text stands between « and »", style="bold")
    out.print(Text("question  ", style="bold").append(clean(pair.question), style="dim"), soft_wrap=True)
    for turn in pair.history:
        out.print(Text(f"{turn.role:9} ", style="bold").append(clean(turn.content), style="dim"), soft_wrap=True)
    sides = (("chosen", pair.chosen, pair.chosen_ends, "green"), ("rejected", pair.rejected, pair.rejected_ends, "red"))
    for side, text, ends, style in sides:
        if text:
            body = Text(f"{side:9} ", style="bold").append(clean(pair.context), style="dim")
            out.print(body.append(f"«{clean(text)}{'<end of text>' if ends else ''}»", style=style), soft_wrap=True)


def histogram(sizes: Sequence[int]) -> str:
    """One character a bin, from 0 to the longest; a bin with anything in it is never blank."""
    longest = max(1, *sizes)
    bins = Counter(min(BINS - 1, size * BINS // longest) for size in sizes)
    highest = max(bins.values())
    return "".join(BARS[-(-bins[i] * (len(BARS) - 1) // highest)] for i in range(BINS))


def _sizes(texts: list[str], tokenizer: Tokenizer | None) -> list[int]:
    if tokenizer is None:
        return [len(text) for text in texts]
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= EXCERPT else flat[: EXCERPT - 3] + "..."


def _more(out: Console, count: int) -> None:
    if count > 0:
        line(out, f"    and {count:,} more", style="dim")
