"""Two nodes of one parent as a preference. Pure functions of trees."""

from __future__ import annotations

from typing import Any

from stepdpo.core.steps import STEP_LABEL, cut_step
from stepdpo.core.types import Preference
from stepdpo.pairs.tree.step_marks import marks
from stepdpo.pairs.tree.tree import Tree


def preference(
    tree: Tree, chosen: int, rejected: int, confidence: float = 1.0, merged: bool = False, **meta: Any
) -> Preference:
    r"""Two nodes of one parent as a pair. The shared prefix runs up to and with the label (`...\nStep k:`).

    A side's rest is the way to a finished solution below it that bears it out: a right one below the chosen side, a
    wrong one below the rejected side, the most visited first; empty where there is none. With `merged`, a side's step
    takes in the steps after it to which nothing else was tried. Both sides carry what is known of their steps.
    """
    one, other = tree.nodes[chosen], tree.nodes[rejected]
    if (one.parent, one.feedback) != (other.parent, other.feedback):
        raise ValueError(f"nodes {chosen} and {rejected} do not go on from the same node")
    before = tree.text(chosen).removesuffix(one.text)
    whole = bool(tree.meta.get("whole"))
    label = "" if whole else shared_label(before, one.text, other.text)
    (step, rest, last), (wrong_step, wrong_rest, wrong_last) = (
        (tree.nodes[number].text, "", number) if whole else _side(tree, number, before + label, right, merged)
        for number, right in ((chosen, True), (rejected, False))
    )
    return Preference(
        question=tree.question,
        prefix=before + label,
        chosen=step,
        rejected=wrong_step,
        chosen_rest=rest,
        rejected_rest=wrong_rest,
        answer=tree.answer,
        confidence=confidence,
        chosen_value=_within(tree.value(chosen)),
        rejected_value=_within(tree.value(rejected)),
        history=tree.turns(chosen),
        whole=whole,
        chosen_steps=marks(tree, last),
        rejected_steps=marks(tree, wrong_last),
        meta={"problem": tree.problem, "step": len(tree.path(chosen)) - 2, **tree.meta.get("pair", {}), **meta},
    )


def _within(q: float | None) -> float | None:
    """A value in [-1, 1]: with self-evaluation in it, or rewards above 1, a search's Q may lie outside."""
    return None if q is None else max(-1.0, min(1.0, q))


def _side(tree: Tree, number: int, before: str, right: bool, merged: bool) -> tuple[str, str, int]:
    """The step of a node, the rest of a solution that goes through it, and the node where that ends."""
    found = [i for i in tree.endings(number) if tree.nodes[i].correct is right]
    end = chain_end(tree, number) if merged else number
    # The ending that bears the side out, never one that contradicts it: as a rest, that would teach the opposite.
    last = max(found, key=lambda i: (tree.nodes[i].visits, -i)) if found else end
    text = tree.text(last)[len(before) :]
    step, rest = cut_step(text)
    if end == number and rest:
        return step, rest, last
    at = len(tree.text(end)) - len(before)
    goes_on = len(text) > at or tree.nodes[end].correct is None
    at -= goes_on and text[:at].endswith("\n")  # the line break before the next step belongs to the rest
    return text[:at], text[at:], last


def shared_label(before: str, *texts: str) -> str:
    """What the texts, which go on after `before`, begin with up to and with a `Step k:` they share; may be empty."""
    whole = before + texts[0]
    for match in STEP_LABEL.finditer(whole):
        if match.end() > len(before):
            label = whole[len(before) : match.end()]
            return label if all(text.startswith(label) for text in texts) else ""
    return ""


def chain_end(tree: Tree, number: int) -> int:
    """The last of the nodes that follow one another from a node on without an alternative; may be the node itself."""
    while len(below := tree.children[number]) == 1 and not tree.nodes[below[0]].feedback:
        number = below[0]
    return number
