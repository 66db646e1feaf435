"""The verb `chat`: a model answers questions, one by one, by any decoder, with what a scorer says of every step."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import ClassVar

from stepdpo.cli.chat_commands import Commands
from stepdpo.cli.chat_session import opened
from stepdpo.cli.chat_terminal import converse
from stepdpo.cli.chat_web import serve
from stepdpo.core.protocols import SamplerSpec, Template
from stepdpo.core.ranges import within
from stepdpo.generation.decoded import Decoder
from stepdpo.generation.scorers.none import NoScorer
from stepdpo.generation.step_scorer import StepScorer
from stepdpo.models.load import ModelSpec, without_progress_bars


@dataclass(frozen=True)
class Chat:
    """What answers, and where; the parts are built from their own config groups."""

    model: ModelSpec
    template: Template
    decode: Decoder
    sampler: SamplerSpec
    scorer: StepScorer = field(default_factory=NoScorer)
    web: bool = False
    port: int = 0

    shows_scores: ClassVar[bool] = True
    """A scorer that the decoder does not ask is asked about the answer, once that is there."""

    def __post_init__(self) -> None:
        within(0, 65535, port=self.port)
        if self.port and not self.web:
            raise ValueError("port is that of a page, which --web opens")


def chat(spec: Chat, words: tuple[str, ...]) -> int:
    """Answer until nobody asks any more; the exit code. Raises UserError for bad input.

    `words`: the settings given of decoder and scorer, which commands change.
    """
    without_progress_bars()
    with opened(spec) as session:
        commands = Commands(session, words)
        print(commands.about(), file=sys.stderr, flush=True)
        return serve(session, commands, spec.port) if spec.web else converse(session, commands)
