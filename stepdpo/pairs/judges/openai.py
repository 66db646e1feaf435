"""A large model behind an OpenAI-compatible server as a judge, after Step-DPO's localisation (arXiv 2406.18629)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from stepdpo.core.errors import Outage
from stepdpo.core.ranges import at_least
from stepdpo.core.steps import text_of
from stepdpo.core.types import Problem
from stepdpo.generation.client.client import NEEDS_CLIENT, Client, RequestRefused, connect
from stepdpo.generation.client.config import Server
from stepdpo.generation.client.transcript import Transcript
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import AskJudge, JudgeFailed
from stepdpo.pairs.judges.parsing import Decision, Unreadable, read_decision
from stepdpo.pairs.judges.verdict import JudgeRequests, Verdict
from stepdpo.pairs.solutions import Solution

EXCHANGES = "exchanges.jsonl"

TASK = """\
Below are a problem{reference} and {solution_is}. Find its first wrong step{if_any}.

Go through the steps in order. A step is
- correct if what it claims follows from the problem and the steps before it,
- neutral if it claims nothing that could be right or wrong,
- incorrect if it has an error of reasoning, of reading the problem or of calculation.

First explain what you found, in at most 200 words. Then end with one line of exactly the form below: a label for \
every step in order, up to the first incorrect one, where you stop.
Final decision: Step 1: correct; Step 2: neutral; Step 3: incorrect

Problem:
{question}
{solution}
Student's solution:
{steps}"""
WRONG = "a student's solution, which arrives at a wrong answer", ""
UNKNOWN = "a student's solution, which may be right, and may not be finished", ", if it has one"
"""How the solution is spoken of, and its wrong step; by whether it is known to be wrong."""
AGAIN = """

Your last answer could not be read ({reason}). Label steps 1 to {count} only, each once, and end with the line \
"Final decision: Step 1: ..." as described above."""

Reply = str | JudgeFailed


@dataclass(frozen=True)
class OpenAIJudge:
    """First wrong step in the eyes of a model that is asked once a solution."""

    server: Server = field(default_factory=Server)
    temperature: float | None = None
    """None leaves it to the server, as Step-DPO's script does."""
    max_tokens: int | None = 1024
    """Longest answer; None sends no limit."""
    show_reference: bool = True
    """Show the judge the problem's gold solution, or its answer where there is none."""
    neutral_is_error: bool = False
    """Take a neutral step for a wrong one, as Step-DPO's script does."""
    ask_again: int = 1
    """How often an answer that cannot be read is asked for again."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of every request."""

    needs: ClassVar[frozenset[str]] = frozenset()
    package: ClassVar[tuple[str, str]] = ("openai", f"judge.server {NEEDS_CLIENT}")
    """What is imported once it is opened, and what is said where that is missing."""

    def __post_init__(self) -> None:
        at_least(0, ask_again=self.ask_again, temperature=self.temperature)
        at_least(1, max_tokens=self.max_tokens)

    def __call__(self, problem: Problem, solution: Solution, context: Context) -> JudgeRequests:
        """Ask, and ask again where the reply holds no decision. Raises JudgeFailed with the last reply."""
        message = judge_message(problem, solution, self.show_reference)
        more = ""
        for left in range(self.ask_again, -1, -1):
            reply: str = yield AskJudge(message + more)
            try:
                decision: Decision = read_decision(reply, len(solution.steps), self.neutral_is_error)
                return Verdict(decision.error, reply)
            except Unreadable as error:
                if not left:
                    raise JudgeFailed(f"judge: {error}", reply) from None
                # Told what was wrong with it: at temperature 0 the same message would bring the same reply.
                more = AGAIN.format(reason=error, count=len(solution.steps))
        raise AssertionError("unreachable")

    @contextmanager
    def open(self, folder: Path) -> Iterator[JudgeConnection]:
        """Connect to the judge's model; the transcript is kept in `folder`. UserError for a wrong key."""
        with (
            Transcript.opened(folder / EXCHANGES, self.server.api_key_env) as log,
            connect(self.server, "judge.server", optional=True, record=log) as client,
        ):
            yield JudgeConnection(self, client, log)


class JudgeConnection:
    """An open connection to the judge's model: messages in, replies out."""

    def __init__(self, spec: OpenAIJudge, client: Client, log: Transcript) -> None:
        self.spec, self.client, self.log = spec, client, log

    def __call__(self, messages: Sequence[str]) -> list[Reply]:
        """In the order of the messages; a JudgeFailed stands where none came."""
        return self.client.each(self._reply, list(messages))

    @property
    def provenance(self) -> dict[str, Any]:
        """Who was asked, and what it has cost since the run began: for the record."""
        return {"judge": {**self.client.provenance, **self.log.totals}}

    async def _reply(self, message: str) -> Reply:
        body: dict[str, Any] = {"messages": [{"role": "user", "content": message}]}
        limits = {"temperature": self.spec.temperature, "max_tokens": self.spec.max_tokens}
        body |= {name: value for name, value in limits.items() if value is not None}
        try:
            return await self.client.request(True, body, self.spec.extra, reply_text)
        # Returned, not raised: the other messages of the batch have replies, and this problem alone is quarantined.
        except RequestRefused as error:
            return JudgeFailed("judge: request refused", str(error))
        except Outage as error:
            return JudgeFailed("judge: no answer", str(error))


def judge_message(problem: Problem, solution: Solution, show_reference: bool) -> str:
    """The message about one solution. Its steps are numbered anew, whatever their own labels say."""
    known = problem.solution or (f"The answer is {', '.join(problem.answers)}." if problem.answers else "")
    known = known if show_reference else ""
    steps = "\n".join(f"Step {i}: {text_of(step).strip()}" for i, step in enumerate(solution.steps, start=1))
    head = solution.head.strip()
    solution_is, if_any = UNKNOWN if solution.correct else WRONG
    return TASK.format(
        solution_is=solution_is,
        if_any=if_any,
        reference=", its reference solution" if known else "",
        question=problem.question.strip(),
        solution=f"\nReference solution:\n{known.strip()}\n" if known else "",
        steps=f"{head}\n{steps}" if head else steps,
    )


def reply_text(reply: dict[str, Any]) -> str:
    """The text of a chat's first choice. ValueError where there is none."""
    choices = reply.get("choices")
    message = choices[0].get("message") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else 0
    if not isinstance(message, dict):
        raise ValueError("an answer without choices")
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise ValueError("an answer without text")
    return content or ""
