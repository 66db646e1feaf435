"""What `check` prints. Data are never markup: control characters are spelt out, brackets stay brackets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepdpo.core.errors import printable
from stepdpo.core.protocols import Tokenizer
from stepdpo.core.types import Pair, Preference, Problem
from stepdpo.data import statistics
from stepdpo.data.contamination import Likeness, SharedQuestion
from stepdpo.data.rows import BadRow
from stepdpo.data.validation import Finding

BARS = " ▁▂▃▄▅▆▇█"
BINS = 24
EXCERPT = 100
"""Characters of a question that a list shows."""


def line(out: Console, text: str, style: str = "") -> None:
    """One line of plain text, cut nowhere."""
    # A Text, since rich would read brackets of a string as markup: `[red]` in a question is a question's.
    out.print(Text(printable(text), style=style), soft_wrap=True)


def counts(out: Console, numbers: Mapping[str, int]) -> None:
    """Every count that is not 0, and the first five in any case."""
    table = Table("count", "", show_header=False, box=None)
    for i, (name, number) in enumerate(numbers.items()):
        if number or i < 5:
            table.add_row(Text(f"{number:,}", justify="right"), Text(printable(name)))
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
    unit = "characters" if tokenizer is None else "tokens"
    table = Table(unit, "empty", "median", "90 %", "99 %", "longest", "0 to longest", title="\nLengths", box=None)
    for name, sizes in statistics.sizes(preferences, tokenizer).items():
        if any(sizes):
            table.add_row(name, *map(str, statistics.summary(sizes).values()), Text(histogram(sizes)))
    out.print(table)


def contents(out: Console, preferences: Sequence[Preference]) -> None:
    """Doubles, the steps that preferences are about, values and labels, as far as there are any."""
    for kind, count in statistics.duplicates(preferences).items():
        if count:
            line(out, f"{count:,} x {kind} (kept)", style="yellow")
    bars(out, "Step", statistics.steps(preferences))
    for name, value in statistics.value_summary(preferences).items():
        line(out, f"{name}: {value:,.3g}" if isinstance(value, float) else f"{name}: {value:,}")
    for name, count in statistics.label_summary(preferences).items():
        line(out, f"{name}: {count:,}")


def bars(out: Console, title: str, numbers: Mapping[Any, int]) -> None:
    """One bar a line, as long as the number is large."""
    if not numbers:
        return
    table = Table(title, "", "", title="", box=None)
    highest = max(numbers.values())
    for name, number in numbers.items():
        table.add_row(str(name), f"{number:,}", Text("█" * max(1, round(40 * number / highest))))
    out.print(table)


def likelihoods(out: Console, found: Mapping[str, Any], total: int) -> None:
    """What a model makes of both sides; `found` is Likelihoods.summary()."""
    left = "".join(f"; {count:,} left out: {reason}" for reason, count in found["left out"].items())
    line(out, f"\nUnder {found['model']}, template {found['template']}", style="bold")
    line(out, f"  {found['pairs']:,} of {total:,} preferences{left}")
    table = Table("nats a token", "mean", "in distribution", box=None)
    for side, mean in found["mean log-probability a token"].items():
        share = found["in distribution"].get(side)
        table.add_row(side, f"{mean:.3f}", "" if share is None else f"{share:.0%}")
    out.print(table)
    if found["chosen likelier"] is not None:
        line(out, f"  the chosen side is the likelier one in {found['chosen likelier']:.0%} of the pairs")
    if found["threshold"] is not None:
        line(out, f"  in distribution: not below {found['threshold']:.3f}, as are 95 % of the model's own texts")


def shared(out: Console, found: Sequence[SharedQuestion], tasks: Mapping[str, Sequence[Problem]], shown: int) -> None:
    """Training questions that resemble problems of evaluation tasks."""
    for task, problems in tasks.items():
        here = [item for item in found if item.task == task]
        line(out, f"\n{task}: {len(problems):,} problems, {len(here):,} training questions resemble one", style="bold")
        for likeness, count in Counter(item.likeness for item in here).items():
            line(out, f"  {count:,} x {likeness.value}{_shares(here) if likeness is Likeness.RUN else ''}")
            for item in [i for i in here if i.likeness is likeness][:shown]:
                line(out, f"    {item.problem_id}: {_excerpt(item.question)}")
            _more(out, count - shown)


def _shares(items: Sequence[SharedQuestion]) -> str:
    shares = [item.share for item in items if item.likeness is Likeness.RUN]
    return f"; on average {sum(shares) / len(shares):.0%} of the question's runs of 13 words are shared"


def example(out: Console, number: int, pair: Pair) -> None:
    """One preference as the loss sees it: what stands between « and » is scored, the rest is only read."""
    line(out, f"\nPreference {number}: scored text stands between « and »", style="bold")
    out.print(Text("question  ", style="bold").append(printable(pair.question), style="dim"), soft_wrap=True)
    for turn in pair.history:
        out.print(Text(f"{turn.role:9} ", style="bold").append(printable(turn.content), style="dim"), soft_wrap=True)
    sides = (("chosen", pair.chosen, pair.chosen_ends, "green"), ("rejected", pair.rejected, pair.rejected_ends, "red"))
    for side, text, ends, style in sides:
        if text:
            body = Text(f"{side:9} ", style="bold").append(printable(pair.context), style="dim")
            out.print(body.append(f"«{printable(text)}{'<end of text>' if ends else ''}»", style=style), soft_wrap=True)


def histogram(sizes: Sequence[int]) -> str:
    """One character a bin, from 0 to the longest; a bin with anything in it is never blank."""
    longest = max(1, *sizes)
    bins = Counter(min(BINS - 1, size * BINS // longest) for size in sizes)
    highest = max(bins.values())
    return "".join(BARS[-(-bins[i] * (len(BARS) - 1) // highest)] for i in range(BINS))


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= EXCERPT else flat[: EXCERPT - 3] + "..."


def _more(out: Console, count: int) -> None:
    if count > 0:
        line(out, f"    and {count:,} more", style="dim")
