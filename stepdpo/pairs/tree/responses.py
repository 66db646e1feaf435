"""Trees as training data: every response in them, with what the tree knows of its steps and of its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from stepdpo.core.package_data import sources
from stepdpo.core.types import Preference
from stepdpo.data.readers import fingerprint_of, local_files
from stepdpo.data.rows import BadRow
from stepdpo.data.validation import Loaded, check_settings, gather, share
from stepdpo.pairs.tree.files import place_of, read_trees
from stepdpo.pairs.tree.step_marks import Labels, marked_steps
from stepdpo.pairs.tree.tree import Tree

UNKNOWN = "responses of which nothing is known, or nothing new (left out)"
CODE = ["pairs/tree/*.py", "data/*.py"]


class Shared(Enum):
    """Where a step that several responses go through is labelled."""

    once = "once"
    """In the first of them, so that each step of the tree counts once."""
    every = "every"
    """In all of them."""


@dataclass(frozen=True)
class TreeResponses:
    """The responses of a run's trees, none with a rejected side: chosen = the way to a leaf, label = its answer's."""

    path: str
    """The folder of a run of `stepdpo pairs` that searched, its trees.jsonl, or published trees."""
    labels: Labels = Labels.soft
    """How right a step is: `soft`, m / n or (Q + 1) / 2; `hard`, whether anything after it came right."""
    shared: Shared = Shared.once
    """Where a step that several responses share is labelled: `once`, in the first; `every`, in all."""
    limit: int | None = None
    """The first so many trees."""
    max_bad: float | str = 0
    """The share of bad rows beyond which the data are refused: 0.01 or "1%"."""
    heldout: float | str = 0
    """Responses kept from training, by whole questions: a number, or a share (0.05, "5%")."""
    seed: int = 0
    """Chooses the held-out questions."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_settings(self.max_bad, self.heldout, self.limit)

    def load(self) -> Loaded:
        """Read every tree and take its responses."""
        good: list[tuple[Preference, str]] = []
        bad: list[BadRow] = []
        odd: Counter[str] = Counter()
        for item in read_trees(self.path):
            if isinstance(item, BadRow):
                bad.append(item)
                continue
            good += responses(item, self.labels, self.shared, odd)
            odd["trees"] += 1
            if odd["trees"] == self.limit:
                break
        return gather(good, bad, odd, heldout=self.heldout, seed=self.seed, max_bad=share(self.max_bad))

    def fingerprint(self) -> str | None:
        """Hash of the settings, of the bytes of the files and of the code that reads them; None for data of the hub."""
        files = local_files(place_of(self.path))
        return None if files is None else fingerprint_of(self, (*files, *sources(CODE)))


def responses(tree: Tree, labels: Labels, shared: Shared, odd: Counter[str]) -> Iterator[tuple[Preference, str]]:
    """A response for every leaf of a tree, and its place as `file:row:node`; `odd` counts what is left out."""
    labelled: set[int] = set()
    for leaf in leaves(tree):
        found = marked_steps(tree, leaf, labels)
        steps = tuple(mark if i not in labelled else type(mark)(mark.end) for i, mark in found)
        if shared is Shared.once:
            labelled.update(i for i, mark in found if mark.value is not None)
        correct = tree.nodes[leaf].correct
        if correct is None and all(mark.value is None for mark in steps):
            odd[UNKNOWN] += 1
            continue
        odd["responses without an end"] += correct is None
        about = {"problem": tree.problem, "node": leaf, **tree.meta.get("pair", {})}
        yield (
            Preference(
                question=tree.question,
                prefix="",
                chosen=tree.text(leaf),
                rejected="",
                answer=tree.answer,
                history=tree.turns(leaf),
                whole=correct is not None,  # an end of text after it would teach the model to stop in mid-work
                label=None if correct is None else float(correct),
                chosen_steps=steps,
                meta=about,
            ),
            f"{tree.place}:{leaf}",
        )


def leaves(tree: Tree) -> list[int]:
    """Nodes with which a response ends: nothing goes on from them, or only after the user has answered."""
    ends = [i for i in range(1, len(tree.nodes)) if all(tree.nodes[child].feedback for child in tree.children[i])]
    return [i for i in ends if tree.text(i).strip()]
