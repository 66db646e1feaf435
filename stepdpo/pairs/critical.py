"""Critical tokens of pairs that are there already: what cDPO weighs (Lin et al. 2024, arXiv 2411.19943)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from stepdpo.core.errors import UserError
from stepdpo.core.types import Mark, Preference, Problem
from stepdpo.data.dataset import Dataset
from stepdpo.data.fields import RowError
from stepdpo.data.template_card import resolve
from stepdpo.data.templates import NativeTemplate
from stepdpo.data.validation import enforce
from stepdpo.models.contrast import Contrast, opened
from stepdpo.models.load import Pretrained
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Requests, Result
from stepdpo.tokens.tokenization import encode


@dataclass(frozen=True)
class Critical:
    """Every pair again, its rejected tokens weighed by 1 - s, s = softmax(2 z_positive - z_negative) of the token.

    `positive` is a model trained on right solutions, `negative` one trained on wrong ones, both from the policy. What
    both sides share keeps weight 1, and so does the chosen side unless `both`, which weighs it by s.
    """

    path: str
    """preferences.jsonl, the folder of a run of `stepdpo pairs`, or any data that `dataset.path` takes."""
    positive: str
    """A folder or hub id."""
    negative: str
    both: bool = False
    bfloat16: bool = False
    """Both models in bfloat16 and not in float32."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    def problems(self) -> Iterator[Problem]:
        """The pairs, each as a problem under a name of its own, scored as they are asked for."""
        loaded = Dataset(path=self.path).load()
        enforce(loaded)
        if not any(preference.rejected for preference in loaded.preferences):
            raise UserError(f"pairs.path: {self.path} has no rejected sides")
        models = (Pretrained(path=self.positive), Pretrained(path=self.negative))
        with opened(*models, self.bfloat16) as contrast:
            template, _ = resolve(NativeTemplate(), models[0].source, contrast.tokenizer)
            for number, preference in enumerate(loaded.preferences):
                try:
                    found: Any = self._weighed(preference, contrast, template)
                except RowError as error:
                    found = str(error)
                yield Problem(str(number), preference.question, (), meta={"weighed": found})

    def __call__(self, problem: Problem, context: Context) -> Requests:
        """Nothing is requested."""
        yield from ()
        found = problem.meta["weighed"]
        if isinstance(found, str):
            return Result(outcome="a pair that the chat template refuses", unusable=found)
        return Result((found,), "pairs")

    def _weighed(self, preference: Preference, contrast: Contrast, template: Any) -> Preference:
        wrong = _scores(preference, preference.rejected + preference.rejected_rest, contrast, template)
        shared = (Mark(len(preference.prefix), 1.0),) if preference.prefix else ()
        weighed = replace(preference, rejected_weights=(*shared, *(Mark(end, 1 - s) for end, s in wrong)))
        if not self.both:
            return weighed
        right = _scores(preference, preference.chosen + preference.chosen_rest, contrast, template)
        return replace(weighed, chosen_weights=(*shared, *(Mark(end, s) for end, s in right)))


def _scores(preference: Preference, side: str, contrast: Contrast, template: Any) -> list[tuple[int, float]]:
    """(where a token ends in `prefix + side`, s) of every token that ends within the side.

    Where several tokens end with one character, the least of their scores.
    """
    prompt = template.render(preference.question, preference.history, contrast.tokenizer)
    start = prompt.text + prompt.joint
    before = len(start + preference.prefix)
    ((ids, ends),) = encode([start + preference.prefix + side], contrast.tokenizer)
    first = next((number for number, end in enumerate(ends) if end > before), len(ids))
    found: dict[int, float] = {}
    for end, s in zip(ends[first:], contrast(ids, first) if first < len(ids) else (), strict=True):
        place = end - len(start)
        found[place] = min(s, found.get(place, 1.0))
    return sorted(found.items())
