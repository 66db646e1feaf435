"""Lines that begin with a slash: they change who decodes and who scores, and tell what there is."""

from __future__ import annotations

from collections.abc import Sequence

from stepdpo.cli import overrides, shorthands
from stepdpo.cli.chat_session import Session
from stepdpo.core.config import build
from stepdpo.core.errors import UserError, nearest
from stepdpo.evaluation.evaluate import refuse_unasked_scorer
from stepdpo.evaluation.identity import option

VERB = "chat"
GROUPS = ("decode", "scorer")
"""What may change while the model stays."""
QUIT = "/quit"
HELP = f"""\
Every line is a question of its own: what was asked before is not remembered.
  /decode NAME [KEY=VALUE ...]   how the answer is found: /decode vote n=4
  /scorer NAME [KEY=VALUE ...]   who values the steps: /scorer logprob
  /about                         what is loaded, and how it answers
  /help                          this
  {QUIT}                          leave (on the terminal Ctrl-D does it too; Ctrl-C stops an answer)"""
KNOWN = ("/decode", "/scorer", "/about", "/help", QUIT)


class Commands:
    """What the commands of one session do."""

    def __init__(self, session: Session, words: Sequence[str]) -> None:
        """`words`: the settings that the session was opened with."""
        self.session = session
        self.words = {group: [word for word in words if _group(word) == group] for group in GROUPS}

    def run(self, line: str) -> str:
        """What to say of a command. Raises UserError for one that means nothing, which changes nothing."""
        name, *words = line.split()
        if name not in KNOWN:
            raise UserError(f"{name}: there is no such command; {nearest(name, KNOWN)}")
        if name == "/help":
            return HELP
        group = name.removeprefix("/")
        if group in GROUPS and words:
            self._change(group, words)
        elif group in GROUPS:
            options = shorthands.groups(shorthands.known_folders())[group]
            return f"{self.about()}\n{name} takes one of: {', '.join(options)}"
        return self.about()

    def about(self) -> str:
        """What is loaded, and how it answers."""
        session = self.session
        values = f", values by {session.valued_by}" if session.valued_by else ""
        where = getattr(session.sampler, "provenance", {})
        machine = "".join(f", {where[key]}" for key in ("device", "dtype") if key in where)
        source = getattr(session.model, "path", session.model.source)
        first = f"{source}: {_said(session.decode)}{values}, template {session.template.name}{machine}"
        return "\n".join([first, *session.notes])

    def _change(self, group: str, words: Sequence[str]) -> None:
        given = {one: list(some) for one, some in self.words.items()}
        first, *rest = words
        given[group] = []  # another decoder has other settings
        for word in [first if "=" in first else f"{group}={first}", *rest]:
            full = word if _group(word) in GROUPS else f"{group}.{word}"
            if full.startswith("scorer=") and group != "scorer":
                given["scorer"] = []
            given[_group(full)].append(full)
        config = overrides.check(VERB, [word for some in given.values() for word in some], sweep=False)
        decode, scorer = build(config.decode, "decode"), build(config.scorer, "scorer")
        refuse_unasked_scorer(_Parts(decode, scorer))
        self.session.change(decode, scorer)
        self.words = given


class _Parts:
    """As much of a chat as is looked at when it changes."""

    shows_scores = True

    def __init__(self, decode: object, scorer: object) -> None:
        self.decode, self.scorer = decode, scorer


def _group(word: str) -> str:
    return shorthands.key_of(word).partition(".")[0]


def _said(decode: object) -> str:
    """A decoder with how much it draws, where it draws more than one."""
    named = {name: getattr(decode, name, None) for name in ("n", "beams", "trees", "expand", "simulations")}
    return option(decode) + "".join(f" {name}={value}" for name, value in named.items() if value is not None)


def is_command(line: str) -> bool:
    """Whether a line is no question."""
    return line.startswith("/")
