"""What a generator that works on one problem requests of models: a decoder, a way of making pairs, a judge.

It yields a request and is sent the answer. It never waits for a model itself, so that many problems can be worked on at
once and every call to a model is a full batch.
"""

from __future__ import annotations

from dataclasses import dataclass

# Requests are frozen values: equal ones are one key of the SampleCache, and a request decides its answer, as its random
# streams follow from the prompts, `again` and the seed. Batches, workers and resumed runs thus have no say in results.


@dataclass(frozen=True, slots=True)
class Generate:
    """Continuations of each prompt; answered with a list of `n` Completions a prompt."""

    prompts: tuple[str, ...]
    n: int
    again: int = 0
    """How often these prompts were requested before; another number is another random stream, a fresh sample."""
    temperature: float | None = None
    """None for the run's own, as below."""
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logps: bool = False
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class GradeAnswers:
    """Whole responses to the problem; answered with a Grade each, by their final answers."""

    responses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScoreText:
    """Log-probabilities of texts that the model need not have written; answered with nats a continuation."""

    prompts: tuple[str, ...]
    continuations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskJudge:
    """One message to the judge's model; answered with its reply. JudgeFailed is thrown where none came."""

    message: str


@dataclass(frozen=True, slots=True)
class Beginning:
    """A response, or its first steps."""

    steps: tuple[str, ...]
    """At least one. Joined they are its text to the character."""
    ended: bool
    """Whether the model ended it there."""
    following: str = ""
    """What is written after it, as far as that is known. A token that reaches into it is not a part of it, as in
    training, where `5.` and a line break may be one token."""

    @property
    def text(self) -> str:
        return "".join(self.steps)


@dataclass(frozen=True, slots=True)
class Scored:
    """How promising a beginning is."""

    score: float
    """The larger, the more promising."""
    by_step: tuple[float, ...]
    """Of each step, before they were made into one."""
    log: bool
    """Whether these are log-probabilities or log-ratios, of any sign; else probabilities in [0, 1]."""
    tokens: int = 0
    """What models read for it."""


@dataclass(frozen=True, slots=True)
class ScoreSteps:
    """Beginnings of responses to one prompt; answered with a `Scored` each, by what `scorer=` names."""

    prompt: str
    beginnings: tuple[Beginning, ...]


@dataclass(frozen=True, slots=True)
class GroupAnswers:
    """Whole responses to one problem; answered with the number of each one's final answer, None where it has none.

    Equal answers have one number: that of the first response which gives it.
    """

    responses: tuple[str, ...]


Request = Generate | GradeAnswers | ScoreText | AskJudge | ScoreSteps | GroupAnswers


class JudgeFailed(Exception):
    """A judge did not reply, or its reply could not be parsed."""

    def __init__(self, reason: str, reply: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        """In a few words that many problems share, as outcomes are counted by them."""
        self.reply = reply
        """The last one, if any."""
