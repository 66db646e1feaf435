"""A small sample of the policy's own answers: how many are without a final answer, and how many do not end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Template
from stepdpo.core.types import Preference
from stepdpo.data.fields import RowError
from stepdpo.data.validation import DatasetSpec
from stepdpo.evaluation.graders.answers import find_answer
from stepdpo.generation.decode_many import answers
from stepdpo.generation.decoding.greedy import Greedy
from stepdpo.generation.transformers import TransformersSampler
from stepdpo.models.load import Pretrained
from stepdpo.tokens.tokenization import question_prompt
from stepdpo.training.config import Training
from stepdpo.training.engine.settings import pick_device
from stepdpo.training.guard import RUN_ON, UNPARSED

FOLDER = ".sample.tmp"
"""Of the run folder: where the policy lies while it answers; what a killed process leaves is tidied by the next one."""


class AnswerSample:
    """Answers the same questions greedily whenever it is called. It draws no random number and changes no weight."""

    def __init__(
        self, prompts: Sequence[str], max_tokens: int, device: str, save: Callable[[Path], None], folder: Path
    ) -> None:
        """`save` writes the policy into a folder, as any program opens it; `folder` is that of the run."""
        self.prompts, self.decode, self.save = prompts, Greedy(max_tokens), save
        self.sampler = TransformersSampler(device=device, progress=False)
        self.place = folder / FOLDER

    def __call__(self) -> dict[str, float]:
        """Shares of the answers, in [0, 1], and their mean length in tokens."""
        # By way of the disc: the policy itself reads token trees alone, and what is saved is what will be evaluated.
        self.save(self.place)
        try:
            with self.sampler.open(Pretrained(str(self.place))) as sampler:
                given = answers(self.decode, self.prompts, sampler)
        finally:
            shutil.rmtree(self.place, ignore_errors=True)
        return {
            UNPARSED: sum(find_answer(answer.text) is None for answer in given) / len(given),
            RUN_ON: sum(answer.finish == "length" for answer in given) / len(given),
            "sample/tokens": sum(answer.tokens for answer in given) / len(given),
        }


def answer_sample(
    spec: Training, template: Template, tokenizer: Any, save: Callable[[Path], None], folder: Path
) -> AnswerSample | None:
    """What the guard of a training asks its policy now and then; None where it asks nothing."""
    if not spec.guard.sample:
        return None
    prompts = prompts_of(spec.dataset, template, tokenizer, spec.guard.sample)
    return AnswerSample(prompts, spec.guard.max_tokens, str(pick_device(spec.engine.device)), save, folder)


def prompts_of(dataset: DatasetSpec, template: Template, tokenizer: Any, count: int) -> list[str]:
    """The first `count` questions, each once, as the policy is asked them: held-out ones, else those trained on."""
    loaded = dataset.load()
    prompts = _distinct(loaded.heldout or loaded.preferences, template, tokenizer, count)
    if not prompts:
        raise UserError("guard.sample: none of the questions can be asked")
    return prompts


def _distinct(preferences: Iterable[Preference], template: Template, tokenizer: Any, count: int) -> list[str]:
    prompts: dict[str, None] = {}
    for preference in preferences:
        if len(prompts) == count:
            break
        try:
            prompt = question_prompt(template, preference.question, preference.history, tokenizer)
        except RowError:
            continue  # what cannot be asked is not trained on either
        prompts[prompt.text] = None
    return list(prompts)
