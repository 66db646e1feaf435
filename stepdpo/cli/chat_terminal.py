"""`stepdpo chat` on the terminal, or in a pipe: a question a line, until there are no more."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from typing import Any

from stepdpo.cli.chat_commands import QUIT, Commands, is_command
from stepdpo.cli.chat_display import Display, note
from stepdpo.cli.chat_session import Session
from stepdpo.cli.job_result import ExitCode
from stepdpo.core.errors import Outage, UserError

PROMPT = "\n> "


def converse(session: Session, commands: Commands) -> int:
    """Answer line by line; the exit code: of a pipe, whether every line could be answered."""
    person = sys.stdin.isatty()
    if person:
        note("a question a line; /help tells the commands, Ctrl-C stops an answer, Ctrl-D leaves")
        with suppress(ImportError):
            import readline  # noqa: F401  (lines can then be edited, and earlier ones called back)
    code: int = ExitCode.OK
    lines = 0
    while (line := _next_line(person)) is not None:
        if not line:
            continue
        lines += 1
        if line.split()[0] == QUIT:
            break
        if (ended := _answered(session, commands, line, person)) != ExitCode.OK:
            code = ended
        if code == 128 + signal.SIGINT and not person:
            break
    if not lines and not person:
        raise UserError("no question came in: standard input is empty")
    return ExitCode.OK if person else code


def _answered(session: Session, commands: Commands, line: str, person: bool) -> int:
    """Answer one line, whatever comes of it."""
    display = Display()
    try:
        if is_command(line):
            note(commands.run(line))
            return ExitCode.OK
        if not person:
            note(f"\n> {line}")
        display.answer(session.ask(line, display.tell))
    except UserError as error:
        note(f"error: {error}")
        return ExitCode.USER_ERROR
    except Outage as error:
        note(f"error: {error}")
        return ExitCode.FAILED
    except KeyboardInterrupt:
        display.stopped()
        return 128 + signal.SIGINT
    return ExitCode.OK


def _next_line(person: bool) -> str | None:
    """What is asked next, without blanks around it; None at the end."""
    try:
        if not person:
            line = sys.stdin.readline()
            return line.strip() if line else None
        return input(PROMPT).strip()
    except EOFError:
        note("")
        return None
    except KeyboardInterrupt:
        if not person:
            raise SystemExit(128 + signal.SIGINT) from None
        note("\n(Ctrl-D or /quit leaves)")
        return ""
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not {_encoding()} ({error.reason})") from error


def _encoding() -> Any:
    return getattr(sys.stdin, "encoding", "UTF-8")
