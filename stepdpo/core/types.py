"""The nouns: immutable records that travel between the parts. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Words, not an enum: they stand in attempts.jsonl as they are, and a reader of that file need not know us.
CORRECT, WRONG, UNPARSED = "correct", "wrong", "unparsed"


# Slots: a million of these are in memory together, and a dictionary for each would be most of it.
@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of a stretch of text, which begins where the mark before it ends."""

    end: int
    """The first character that no longer belongs to it; marks of one text are in rising order."""
    value: float | None = None
    """None where nobody knows."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation that precedes the response."""

    role: str
    """`user` or `assistant`; `system` for the first of a conversation."""
    content: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its gold answer."""

    id: str
    question: str
    answers: tuple[str, ...]
    """Gold final answers as text; usually one. All of them must be given by a correct response."""
    solution: str = ""
    """Gold working, empty where the source has none."""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preference:
    """After the same question and the same correct steps, one next step is better than another.

    `prefix + chosen + chosen_rest` is a whole solution, and so is `prefix + rejected + rejected_rest`:
    the four texts are concatenated as they are, never stripped.
    """

    question: str
    prefix: str
    """Reasoning that both sides share, ending just before the step (`...\\nStep 3:`); may be empty."""
    chosen: str
    """The better next step; with `chosen_rest` empty, possibly a whole response."""
    rejected: str
    """The worse next step; empty only in data for supervised training."""
    chosen_rest: str = ""
    rejected_rest: str = ""
    answer: str = ""
    confidence: float = 1.0
    """Probability in [0.5, 1] that the chosen side really is the better one; 1 - confidence is label smoothing."""
    chosen_value: float | None = None
    rejected_value: float | None = None
    """Estimated values in [-1, 1] where the pair came from a search or from roll-outs."""
    history: tuple[Turn, ...] = ()
    """Turns between the question and the response (multi-turn data), oldest first.

    Where the data have a turn of the system it is the first here, and is read before the question.
    """
    whole: bool = False
    """Whether the two sides are whole responses rather than steps of one: they end with the end-of-text token."""
    label: float | None = None
    """Of a response without a rejected side, how right it is as a whole, in [0, 1]: 1 right, 0 wrong."""
    chosen_steps: tuple[Mark, ...] = ()
    """The steps of `prefix + chosen + chosen_rest`, each with the probability in [0, 1] that it is right: 1 right,
    0 wrong, between them the share of roll-outs after it that came right. Empty where nobody marked them."""
    rejected_steps: tuple[Mark, ...] = ()
    """The same of `prefix + rejected + rejected_rest`."""
    chosen_weights: tuple[Mark, ...] = ()
    """Weights, not below 0, of stretches of `prefix + chosen + chosen_rest`; 1 where there are none."""
    rejected_weights: tuple[Mark, ...] = ()
    """The same of `prefix + rejected + rejected_rest`."""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """What one training example reads and what it scores: everything after `context` is scored."""

    question: str
    context: str
    """Text after the prompt that is read but not scored."""
    chosen: str
    rejected: str
    chosen_ends: bool = False
    """Whether the end-of-text token follows the chosen side, and is scored."""
    rejected_ends: bool = False
    confidence: float = 1.0
    history: tuple[Turn, ...] = ()
    rest: str = ""
    """What follows the chosen side and is right as far as anybody knows."""
    rest_ends: bool = False
    """Whether the end-of-text token follows the rest."""
    label: float | None = None
    """As in Preference; the marks below are of the scored texts alone."""
    chosen_steps: tuple[Mark, ...] = ()
    rejected_steps: tuple[Mark, ...] = ()
    chosen_weights: tuple[Mark, ...] = ()
    rejected_weights: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered template: what the model is given before it answers."""

    text: str
    joint: str
    """The first character(s) of every response under this template: "", " " or a newline."""
    joint_alone: bool = True
    """Whether a scored response that no unscored text stands before begins with it, too."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate. temperature 0 is greedy decoding, and then n must be 1."""

    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    """A response is cut before the first of these strings."""
    seed: int = 0
    logps: bool = False
    """Whether completions carry their log-probabilities."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated response."""

    text: str
    tokens: int
    """Generated tokens, the end-of-text token included."""
    finish: str
    """`eos` or `stop` when the model ended by itself, `length` when it ran into max_tokens."""
    logp: float | None = None
    """Nats of all generated tokens together under the model itself (temperature 1, no top-p), where asked for."""
    stop: str = field(default="", compare=False)
    """The stop string that ended it, the longest if several begin there; empty where the sampler does not say."""


@dataclass(frozen=True, slots=True)
class Grade:
    """What a grader thinks of one response."""

    verdict: str
    """`correct`, `wrong` or `unparsed` (no answer could be found)."""
    extracted: str
    """The answer that was found, as compared; empty when unparsed."""
    reason: str
    """Why, in a few words: the rule that found the answer and the rule that decided."""


@dataclass(frozen=True, slots=True)
class GradedResponse:
    """One of several responses to a problem, graded by both graders."""

    response: str
    tokens: int
    finish: str
    official: Grade
    strict: Grade
    share: float
    """How much of the problem's answer it is; those of one problem sum to 1."""
    score: float | None = None
    """What a scorer says of it."""
    group: int | None = None
    """The number of its final answer among those of the problem."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answered problem, graded by both graders; of several responses it shows that with the largest share."""

    problem_id: str
    question: str
    answers: tuple[str, ...]
    response: str
    tokens: int
    finish: str
    official: Grade
    strict: Grade
    meta: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[GradedResponse, ...] = ()
    """All responses, where a decoder gave several, or scored the one."""
    cost: Mapping[str, int] = field(default_factory=dict)
    """`generated` and `scored` tokens and `calls` to models; left out of a single response, which cost itself."""
    seed: int | None = None
    """Of the decoder, where a problem is attempted under several."""

    def part(self, grader: str, verdict: str) -> float:
        """How much of the answer has a verdict, in [0, 1]: 0 or 1 of a single response."""
        if not self.samples:
            return float(getattr(self, grader).verdict == verdict)
        return sum(one.share for one in self.samples if getattr(one, grader).verdict == verdict)


@dataclass(frozen=True, slots=True)
class MistakeCount:
    """How often a kind of mistake was made, of the times that it could have been."""

    made: int
    reached: int
    """Places in a working at which it could be made, and that were come to without a mistake."""
