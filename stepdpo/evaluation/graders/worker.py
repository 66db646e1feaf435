"""The process that compares formulas: a template that imports sympy once, and a child forked from it that works.

One request a line on standard input (its number, then `[rule, predictions, golds]` as JSON), one answer a line on
standard output (the number, then the outcome).
The child has the kernel count its processor time from each request on and dies when that is up, whatever it was
computing; the template then answers `timeout` in its place and forks the next child, which takes milliseconds.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import mmap
import os
import resource
import signal
import sys
import warnings

from stepdpo.evaluation.graders.equivalence import same_answer
from stepdpo.evaluation.graders.formulas import same_formula
from stepdpo.evaluation.graders.official_equal import match, symbolic_equal
from stepdpo.evaluation.graders.pending import CRASH, DIFFERENT, EQUAL, MEMORY, TIMEOUT

TYPICAL = (r"\frac{x+1}{2}", r"2\sqrt{3}-\pi i^{2}", r"x = 3y", r"-1 \le x < 2", r"(0,1] \cup [2,\infty)", r"\{1, 2\}")
"""Formulas that the template reads once: the parser's tables grow with use, and children inherit them."""

IDLE = 0
"""What the child notes down in place of a request's number while it has none."""


def outcome(rule: str, predictions: list[str], golds: list[str]) -> str:
    """Compare in full; never raises."""
    try:
        if rule == "official":
            verdict = match(predictions, golds, symbolic_equal)
        else:
            verdict = same_answer(predictions, golds, same_formula)
    except MemoryError:
        return MEMORY
    except Exception:  # a formula that breaks the libraries is a formula that equals nothing
        return DIFFERENT
    return EQUAL if verdict else DIFFERENT


def note(state: mmap.mmap, number: int) -> None:
    """Tell the template which request is being worked on."""
    state[:8] = number.to_bytes(8, "little")


def serve(requests: int, answers: int, state: mmap.mmap, seconds: float, megabytes: int) -> None:
    """The child: answer requests until the input ends."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    # The default action ends the process at once. A Python handler would wait for the interpreter, which may be deep in
    # arithmetic on large integers.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    buffer = b""
    while True:
        while b"\n" not in buffer:
            chunk = os.read(requests, 1 << 16)
            if not chunk:
                return
            buffer += chunk
        line, _, buffer = buffer.partition(b"\n")
        number, _, body = line.partition(b" ")
        note(state, int(number))
        signal.setitimer(signal.ITIMER_PROF, seconds)  # not the clock's: others on the machine have no say in verdicts
        result = outcome(*json.loads(body))
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(answers, b"%s %s\n" % (number, result.encode()))
        note(state, IDLE)
        if result == MEMORY:  # a fresh child begins with a small heap again
            os._exit(1)


def main(seconds: float, megabytes: int) -> None:
    """The template: import, then keep one child alive."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    for formula in TYPICAL:
        same_formula(formula, formula)
    # Answers have a descriptor of their own, so that nothing a library prints can be taken for one.
    answers = os.dup(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    state = mmap.mmap(-1, 8)  # shared with the children: what one was working on outlives it
    gc.freeze()  # a child's collector leaves these objects alone, and their memory stays shared
    while True:
        note(state, IDLE)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                serve(0, answers, state, seconds, megabytes)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return
        if number := int.from_bytes(state[:8], "little"):
            late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF
            os.write(answers, f"{number} {TIMEOUT if late else CRASH}\n".encode())


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
