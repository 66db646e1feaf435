r"""Sampling one step at a time: its stop strings, and what stands between it and the next one.

The text of a step, as a node of a tree holds it, is `opening + what the model wrote + closing`. What the model reads is
the text so far and the opening, so it goes on from `...\nStep 3:` or from a line break, never from a blank, and what is
scored in training begins where it began to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from stepdpo.core.steps import final_answer_stated, split_steps
from stepdpo.core.types import Completion


class Delimiter(Enum):
    """What parts steps."""

    step = "step"
    """`Step k:` at the start of a line. The opening phrase belongs to the first step."""
    newline = "newline"
    paragraph = "paragraph"
    """An empty line."""
    sentence = "sentence"
    """A full stop before a blank or a line break."""


class StepEquality(Enum):
    """Which steps are one step."""

    text = "text"
    """The same text, white space apart."""
    formulas = "formulas"
    """The same numbers, signs and variables in the same order, whatever the words."""


STOPS = {
    Delimiter.newline: ("\n", "\n\n"),
    Delimiter.paragraph: ("\n\n",),
    Delimiter.sentence: (". ", ".\n", ".\n\n"),
}
"""Several line breaks, or a full stop and a line break, may be one token: a prompt must not end in the middle of it."""
# Boundaries have no width (look-behind, look-ahead), so that the parts of a solution joined are the solution.
BOUNDARIES = {
    Delimiter.newline: r"(?<=\n)(?!\n)",
    Delimiter.paragraph: r"(?<=\n\n)",
    Delimiter.sentence: r"(?<=\.)(?= )|(?<=\.\n)(?!\n)|(?<=\.\n\n)",
}
LABELS = re.compile(r"^\s*Step \d+:", re.MULTILINE)
SYMBOLS = re.compile(r"\d+(?:[.,]\d+)*|\\[A-Za-z]+|(?<![A-Za-z'])[A-Za-z](?![A-Za-z'])|[^\sA-Za-z0-9.,;:!?'\"()$]")
"""Of a step: numbers, LaTeX commands, single letters, signs."""


@dataclass(frozen=True, slots=True)
class SampledStep:
    """One step as it was sampled."""

    text: str
    """With opening and closing."""
    ends: bool
    """Whether it ends the solution: the model stopped, or an answer is stated."""
    tokens: int = 1
    logp: float = 0.0


def stop_strings(delimiter: Delimiter, depth: int) -> tuple[str, ...]:
    """Stop strings of a step after `depth` steps."""
    if delimiter is Delimiter.step:
        # An opening phrase may stand before `Step 1:`, where "\nStep " would stop: the first step stops at `Step 2`.
        return ("\nStep ",) if depth else ("\nStep 2",)
    return STOPS[delimiter]


def opening(delimiter: Delimiter, depth: int) -> str:
    """What is written for the model before its step after `depth` steps."""
    return f"\nStep {depth + 1}:" if delimiter is Delimiter.step and depth else ""


def parse_step(delimiter: Delimiter, depth: int, completion: Completion, joint: str = "") -> SampledStep | str:
    """A sampled step without the template's joint, or why it is none."""
    if completion.finish == "length":
        return "steps cut at step_tokens"
    if not completion.text.startswith(joint):
        return "not in the template's form"
    written = completion.text[len(joint) :]
    if not written.strip():
        return "empty steps"
    ends = completion.finish == "eos" or final_answer_stated(written)
    text = opening(delimiter, depth) + written + (closing(delimiter, completion) if completion.finish == "stop" else "")
    return SampledStep(text, ends, completion.tokens, completion.logp or 0.0)


def closing(delimiter: Delimiter, completion: Completion) -> str:
    """What ends a stopped step: the stop string without a blank; of a sampler that does not name it, the first."""
    return "" if delimiter is Delimiter.step else (completion.stop or STOPS[delimiter][0]).rstrip(" ")


def split_solution(delimiter: Delimiter, solution: str) -> list[str]:
    """A written solution as the steps that `parse_step` would have made of it."""
    if delimiter is Delimiter.step:
        head, steps = split_steps(solution)
        if not steps:
            return [solution]
        bare = [head + steps[0], *steps[1:]]
        return [("\n" if i else "") + step.removesuffix("\n") for i, step in enumerate(bare)]
    return [text for text in re.split(BOUNDARIES[delimiter], solution) if text]


def distinct(texts: Iterable[str], same: StepEquality) -> list[int]:
    """Indices of the first of each text."""
    first: dict[str, int] = {}
    for number, text in enumerate(texts):
        first.setdefault(skeleton(text) if same is StepEquality.formulas else " ".join(text.split()), number)
    return list(first.values())


def skeleton(text: str) -> str:
    """What is left of a text without its words, blanks and punctuation: numbers, signs, single letters, LaTeX commands.

    The text itself where that holds no number: steps in words alone are compared by their words.
    """
    bare = LABELS.sub("", text)
    left = " ".join(SYMBOLS.findall(bare))
    return left if any(sign.isdigit() for sign in left) else " ".join(bare.split())
