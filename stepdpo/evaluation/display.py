"""What a person sees of an evaluation once it is done."""

from __future__ import annotations

from typing import Any

from stepdpo.evaluation.breakdown import in_words
from stepdpo.evaluation.statistics import counted

TOO_MANY = 0.05
"""Share of responses without an answer, or cut at the limit, above which a warning is due."""


def print_summary(summary: dict[str, Any]) -> None:
    """One line a grader, one a kind of mistake, and what makes the numbers doubtful."""
    n = summary["n"]
    for grader, block in summary["graders"].items():
        share, interval = 100 * block["accuracy"], (100 * block["ci_low"], 100 * block["ci_high"])
        print(
            f"{grader:<9}{share:5.1f} %  (95 %: {interval[0]:.1f} to {interval[1]:.1f})  "
            f"{counted(block['correct'])}/{n} correct, {counted(block['unparsed'])} without an answer",
            flush=True,
        )
    if seeds := summary.get("seeds"):
        shares = ", ".join(f"{100 * accuracy:.1f}" for accuracy in seeds.values())
        print(f"by seed {', '.join(seeds)}: {shares} % (strict)", flush=True)
    for name, values in summary.get("at_k", {}).items():
        print(
            f"{name}: " + ", ".join(f"{100 * value['value']:.1f} % at {k}" for k, value in values.items()), flush=True
        )
    if summary["decode"] != "greedy":
        cost = [f"{one['mean']:,.0f} {name.replace('_', ' ')}" for name, one in summary["cost"].items()]
        print(f"a problem: {', '.join(cost)}", flush=True)
    for line in in_words(summary.get("by", {})):
        print(line, flush=True)
    for kind, count in summary.get("mistakes", {}).items():
        print(f"{kind}: {count['made']} of {count['reached']} times", flush=True)
    unparsed, truncated = summary["graders"]["strict"]["unparsed"], summary["truncated"]
    if unparsed > TOO_MANY * n:
        print(
            f"warning: no answer found in {counted(unparsed)} of {n} responses; is this the model's template?",
            flush=True,
        )
    if truncated > TOO_MANY * n:
        print(
            f"warning: {counted(truncated)} of {n} responses ran into decode.max_tokens or the model's length",
            flush=True,
        )
