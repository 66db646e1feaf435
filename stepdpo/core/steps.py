"""Split a solution into its steps and join them again, without losing a character."""

from __future__ import annotations

import re
from collections.abc import Sequence

STEP_LABEL = re.compile(r"(?:^|(?<=\n))Step \d+:")
"""`Step k:` at the start of a line; a mention inside a sentence is not a step."""
INLINE_FIRST = re.compile(r"step by step[.:]?[^\S\n]*(Step 1:)")
"""`Step 1:` on the line of the opening phrase, an odd form found in published data."""
ANSWER_STATED = re.compile(r"answer is|\\boxed\s*\{|####", re.IGNORECASE)


def split_steps(solution: str) -> tuple[str, list[str]]:
    """A solution as its head and its steps: `join_steps` gives it back to the character.

    The head is what comes before the first `Step k:`, its line break included. A step begins with its own
    label and runs up to the next one, line break included, so a final answer hangs on the last step.
    Text without a step is all head.
    """
    starts = [match.start() for match in STEP_LABEL.finditer(solution)]
    # Only before the first label of a line: "step by step" may come up again within the working.
    inline = INLINE_FIRST.search(solution, 0, starts[0] if starts else len(solution))
    if inline:
        starts.insert(0, inline.start(1))
    if not starts:
        return solution, []
    # Cut where the next begins, nothing stripped: token ids of a prefix must be those of the whole text's beginning.
    ends = [*starts[1:], len(solution)]
    return solution[: starts[0]], [solution[start:end] for start, end in zip(starts, ends, strict=True)]


def join_steps(head: str, steps: Sequence[str]) -> str:
    """The inverse of `split_steps`."""
    return head + "".join(steps)


def step_ends(head: str, steps: Sequence[str]) -> list[int]:
    """Where each step ends in the whole text, the head being a part of the first.

    The line break before the next label belongs to the next step, as `cut_step` has it.
    """
    ends, at = [], len(head)
    for step in steps:
        at += len(step)
        ends.append(at - step.endswith("\n"))
    return [*ends[:-1], at] if ends else []


def on_lines(texts: Sequence[str]) -> tuple[str, list[int]]:
    """Texts of steps as one text, and where each ends: a line break parts two that no white space parts."""
    whole, ends = "", []
    for text in texts:
        whole += ("\n" if whole and not whole[-1].isspace() and not text[:1].isspace() else "") + text
        ends.append(len(whole))
    return whole, ends


def prefix_before(head: str, steps: Sequence[str], index: int) -> str:
    r"""The solution up to and including the label of step `index` (from 0): `...\nStep k:`, no trailing blank."""
    return join_steps(head, steps[:index]) + label_of(steps[index])


def label_of(step: str) -> str:
    """`Step k:` at the front of a step, or nothing."""
    match = STEP_LABEL.match(step)
    return match.group() if match else ""


def text_of(step: str) -> str:
    """A step without its label and without the line break before the next label."""
    return step[len(label_of(step)) :].removesuffix("\n")


def cut_step(continuation: str) -> tuple[str, str]:
    r"""A continuation of a `...Step k:` prefix as its first step and the rest, which begins `\nStep `.

    The two parts together are the continuation. The last step keeps the final answer that hangs on it.
    """
    # From 1: the rest begins with the line break before a label, which a label at the very front does not have.
    following = STEP_LABEL.search(continuation, 1)
    if following is None:
        return continuation, ""
    cut = following.start() - 1
    return continuation[:cut], continuation[cut:]


def final_answer_stated(text: str) -> bool:
    r"""Whether the text gives a final answer: "answer is", a `\boxed{` or `####`."""
    return ANSWER_STATED.search(text) is not None
