"""Questions that came in over the page, and what is said of each: the model is asked by one thread, one at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

from stepdpo.cli.chat_commands import QUIT, Commands, is_command
from stepdpo.cli.chat_display import best_of, one_line
from stepdpo.cli.chat_session import Answer, Session, Shown, Step, told, worth
from stepdpo.core.errors import Outage, UserError
from stepdpo.generation.watched import Looked, Wrote

WAITING = 16
"""Questions that may wait."""
OFTEN = 0.1
"""Seconds between two counts of tokens."""


@dataclass
class Asked:
    """A question, and the events that its page is sent; None is the last."""

    question: str
    events: Queue[dict[str, Any] | None] = field(default_factory=Queue)
    gone: threading.Event = field(default_factory=threading.Event)
    """Set where nobody waits for the answer any more."""


class _Gone(Exception):
    """Whoever asked has left."""


class Questions:
    """Put in by the threads of a server, taken out by the one that has the model."""

    def __init__(self) -> None:
        self.waiting: Queue[Asked] = Queue(WAITING)

    def put(self, question: str) -> Asked:
        """Raises queue.Full where too many wait."""
        asked = Asked(question)
        self.waiting.put_nowait(asked)
        return asked

    def answer_next(self, session: Session, commands: Commands) -> None:
        """Wait for the next question and answer it."""
        asked = self.waiting.get()
        try:
            if not asked.gone.is_set():
                asked.events.put(_said(asked, session, commands))
        except (UserError, Outage) as error:
            asked.events.put({"kind": "error", "text": str(error)})
        except _Gone:
            pass
        except BaseException as error:
            asked.events.put({"kind": "error", "text": f"the server has ended: {type(error).__name__}"})
            raise
        finally:
            asked.events.put(None)


def _said(asked: Asked, session: Session, commands: Commands) -> dict[str, Any]:
    """What comes of a line; on the way there, events."""
    if asked.question.split()[0] == QUIT:
        return {"kind": "said", "text": "Close this page; Ctrl-C in the terminal ends the server."}
    if is_command(asked.question):
        return {"kind": "said", "text": commands.run(asked.question)}
    last, shown = 0.0, ""

    def tell(event: Wrote | Looked) -> None:
        nonlocal last, shown
        if asked.gone.is_set():
            raise _Gone
        if isinstance(event, Looked):
            asked.events.put(_draft(event))
        elif event.text is not None:
            goes_on = event.text.startswith(shown)
            text, shown = event.text[len(shown) :] if goes_on else event.text, event.text
            asked.events.put({"kind": "text", "text": text, "goes_on": goes_on})
        elif time.monotonic() - last >= OFTEN:
            last = time.monotonic()
            asked.events.put({"kind": "count", "tokens": event.tokens})

    return _answer(session.ask(asked.question, tell))


def _draft(event: Looked) -> dict[str, Any]:
    """The best of some beginnings."""
    place = best_of(event)
    beginning, scored = event.beginnings[place], event.scored[place]
    steps = map(Step, beginning.steps, scored.by_step)
    return {"kind": "draft", "of": len(event.beginnings), "steps": [_step(step, scored.log) for step in steps]}


def _answer(answer: Answer) -> dict[str, Any]:
    cost = answer.cost
    calls = f", {cost.scored:,} read by {answer.scorer} in {cost.calls} calls" if cost.scored else ""
    return {
        "kind": "answer",
        "responses": [_response(shown, answer) for shown in answer.shown],
        "scorer": answer.scorer,
        "cost": f"{cost.generated:,} tokens written{calls}, {answer.seconds:.1f} s",
    }


def _response(shown: Shown, answer: Answer) -> Mapping[str, Any]:
    many = answer.of > 1
    return {
        "steps": [_step(step, answer.log) for step in shown.steps],
        "answer": one_line(shown.answer),
        "votes": f"{shown.voters} of {answer.of}" if many and shown.voters else "",
        "score": told(shown.score, answer.log) if many and shown.score is not None else "",
        "cut": shown.finish == "length",
    }


def _step(step: Step, log: bool) -> dict[str, Any]:
    if step.value is None:
        return {"text": step.text}
    return {"text": step.text, "value": told(step.value, log), "worth": round(worth(step.value, log), 4)}
