"""A trained value head as a scorer: what it says at the end of each step, as probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stepdpo.core.errors import UserError
from stepdpo.generation.answering import ScoreAll
from stepdpo.generation.requests import Beginning, Scored
from stepdpo.generation.score_steps import step_hidden, step_texts
from stepdpo.generation.step_scorer import Aggregate
from stepdpo.generation.transformers import LocalSampler
from stepdpo.models.load import ModelSpec
from stepdpo.models.value_head import FILE, LoadedHead
from stepdpo.tokens.step_scores import Squash


def must_have_head(model: ModelSpec, who: str) -> None:
    """UserError, which says what to train, for a model on this machine without a value head."""
    # Without asking the hub, and without loading anything: a folder is looked into, a name is left for later.
    folder = Path(model.source)
    if folder.is_dir() or model.source == "fresh":
        _look(folder, who, model.source)


def head_of(model: ModelSpec, who: str) -> LoadedHead:
    """The head in a model's folder; UserError where there is none."""
    folder = model.folder()
    if folder is None:
        raise UserError(_missing(who, model.source))
    _look(folder, who, model.source)
    return LoadedHead.of(folder)


def head_scores(head: LoadedHead, local: LocalSampler, aggregate: Aggregate) -> ScoreAll:
    """What scores beginnings with a model in this process; 0 for those that it has no positions for."""

    def score(items: Sequence[tuple[str, Beginning]]) -> list[Scored]:
        texts = step_texts(items, local.tokenizer)
        scored = []
        for text, hidden_SH in zip(texts, step_hidden(local.model, texts, local.batch_tokens), strict=True):
            by_step = [0.0] * len(text.ends)
            if hidden_SH is not None:
                values = head(hidden_SH).double()
                by_step = ((1 + values) / 2 if head.squash is Squash.tanh else values).tolist()
            scored.append(Scored(aggregate(by_step, log=False), tuple(by_step), False, len(text.ids)))
        return scored

    return score


def _look(folder: Path, who: str, source: str) -> None:
    if not (folder / FILE).is_file():
        raise UserError(_missing(who, source))


def _missing(who: str, source: str) -> str:
    return f"{who}: {source!r} has no value head ({FILE}); algo=value, algo=prm or algo=svpo trains one"
