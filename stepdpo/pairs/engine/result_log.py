"""Results appended as they come, so that a run which stops at any moment goes on from what it has finished.

    finished.jsonl              a line a problem, with the lengths of the other files up to and with it
    preferences.partial.jsonl   what training reads; named preferences.jsonl once everything is done
    trees.partial.jsonl         what was searched, where a method returns a tree
    right_solutions.partial.jsonl, ...  rows for other methods, where a method returns them (`BASELINES`)
    quarantine.jsonl            what could not be parsed: a judge's replies, rows of published trees

What a finished run left to be tried again (`failed`) goes on from the same files under the same names.

A problem counts as finished once its line is whole. What was written after the last whole line, a torn line too, is
cut off when the run goes on, so nothing is lost but work in flight and nothing is made twice. Once all are finished,
the files are put in the order of the problems (result_order.py).
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from stepdpo.core.errors import UserError
from stepdpo.core.types import Preference, Problem
from stepdpo.data.preference_file import to_row
from stepdpo.pairs.engine.requests import BASELINES, ProblemResult
from stepdpo.pairs.engine.result_order import UNKNOWN, put_in_order, settle
from stepdpo.runtime.atomic_io import encode
from stepdpo.runtime.run_folder import FINISHED, QUARANTINE

PREFERENCES, TREES = "preferences.jsonl", "trees.jsonl"
KINDS = (PREFERENCES, TREES, QUARANTINE, *(f"{name}.jsonl" for name in BASELINES))


@contextmanager
def open_result_log(folder: Path, resume: bool) -> Iterator[ResultLog]:
    """The log of a run. A run that was not resumed and ends with a UserError leaves nothing of it behind.

    Otherwise the next try, with the mistake mended, would find a run folder in its way.
    """
    result_log = ResultLog(folder)
    try:
        yield result_log
    except UserError:
        if not resume:
            result_log.discard()
        raise
    finally:
        result_log.close()


class ResultLog:
    """The results of one run. `done` are the problems that need no more work, `failed` those to be tried again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.outcomes: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.baselines: Counter[str] = Counter()
        self.seconds = 0.0
        self.places: dict[str, int] = {}
        """Which problems of all those are that were given out and have no result yet."""
        self.last, self.in_order = UNKNOWN, True
        settle(folder / FINISHED, self._partials().values())
        self.reopened = self._reopen()
        ends = self._recover()
        self.files = {name: _truncated(folder / _partial(name), ends[name]) for name in KINDS}
        self.log = (folder / FINISHED).open("ab")
        self.began = time.monotonic() - self.seconds

    def unfinished(self, problems: Iterable[Problem]) -> Iterator[Problem]:
        """Those that are left, one by one; the place of each is kept until its result comes."""
        for place, problem in enumerate(problems):
            if problem.id not in self.done:
                self.places[problem.id] = place
                yield problem

    def add(self, finished: ProblemResult) -> None:
        """Append what came of a problem.

        Its own line goes last: it is the commit. Killed before it, the lengths in the line before it cut off the rest.
        """
        result = finished.result
        rows = _lines(result.preferences)
        self._append(PREFERENCES, rows)
        baselines = {name: _lines(preferences) for name, preferences in result.baselines.items()}
        for name, lines in baselines.items():
            self._append(f"{name}.jsonl", lines)
        if result.tree is not None:
            self._append(TREES, [encode(dict(result.tree))])
        if finished.failed or result.unusable:
            answer = result.unusable or finished.judge_reply
            entry = {"problem": finished.problem, "reason": result.outcome, "answer": answer}
            self._append(QUARANTINE, [encode(entry)])
        line = {
            "problem": finished.problem,
            "place": self.places.pop(finished.problem, UNKNOWN),
            "outcome": result.outcome,
            "pairs": len(rows),
            "samples": finished.samples,
            "tokens": finished.tokens,
            "counts": {name: number for name, number in result.counts.items() if number},
            "baselines": {name: len(lines) for name, lines in baselines.items() if lines},
            "failed": finished.failed,
            "seconds": round(time.monotonic() - self.began, 3),
            "ends": {name: file.tell() for name, file in self.files.items()},
        }
        # Flushed to the system, not synced to the disc, for which every problem would have to wait: a killed process
        # loses nothing. After a power cut the lengths may promise more than is there, which `_truncated` refuses.
        self.log.write(encode(line).encode() + b"\n")
        self.log.flush()
        self._tally(line)

    def close(self) -> None:
        """Stop writing; the run may be resumed, and files that had their final names get them back."""
        self._close_files()
        for name in self.reopened:
            (self.folder / _partial(name)).replace(self.folder / name)
        self.reopened = []

    def put_in_order(self) -> None:
        """Write the files anew in the order of the problems; nothing is added any more."""
        self._close_files()
        if self.in_order:
            return
        put_in_order(self.folder / FINISHED, self._partials())
        # Counts keep the order in which they were first met, which is the problems' as well from now on.
        for counted in (self.failed, self.outcomes, self.counts, self.baselines):
            counted.clear()
        self.last, self.in_order = UNKNOWN, True
        self._recover()

    def finish(self) -> None:
        """Put the results in order, and give them their final names; empty files are not kept."""
        self.put_in_order()
        self.reopened = []
        self.close()
        for name in KINDS:
            path = self.folder / _partial(name)
            if path.stat().st_size:
                path.replace(self.folder / name)
            else:
                path.unlink()

    def discard(self) -> None:
        """Leave nothing behind."""
        self.close()
        for name in (FINISHED, *map(_partial, KINDS)):
            (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _partials(self) -> dict[str, Path]:
        return {name: self.folder / _partial(name) for name in KINDS}

    def _close_files(self) -> None:
        for file in (*self.files.values(), self.log):
            file.close()

    def _append(self, name: str, lines: Iterable[str]) -> None:
        file = self.files[name]
        file.writelines(line.encode() + b"\n" for line in lines)
        file.flush()

    def _tally(self, line: Mapping[str, Any]) -> None:
        before = self.failed.pop(line["problem"], None)
        if before is not None:
            self.outcomes[before] -= 1  # its later line counts; what the first try cost stays
        if line["failed"]:
            self.failed[line["problem"]] = line["outcome"]
        else:
            self.done.add(line["problem"])
        self.outcomes[line["outcome"]] += 1
        self.counts.update(line["counts"])
        self.counts.update({name: line[name] for name in ("pairs", "tokens")})
        self.baselines.update(line.get("baselines", {}))
        self.seconds = max(self.seconds, line["seconds"])
        place = line.get("place", UNKNOWN)
        self.in_order = self.in_order and place >= self.last
        self.last = place

    def _reopen(self) -> list[str]:
        """Take back the final names that `finish` gave, to append to those files; returns whose."""
        finals = [name for name in KINDS if (self.folder / name).exists() and name != _partial(name)]
        if not (self.folder / FINISHED).exists():
            return []
        # Killed within `finish`, some files have their final names and others do not: each is looked at by itself.
        found = [name for name in finals if not (self.folder / _partial(name)).exists()]
        for name in found:
            (self.folder / name).replace(self.folder / _partial(name))
        return found

    def _recover(self) -> dict[str, int]:
        """Read what is finished, truncate a torn line, and return how long the other files are up to there."""
        ends = dict.fromkeys(KINDS, 0)
        path = self.folder / FINISHED
        whole = 0
        if path.exists():
            with path.open("rb") as file:
                for number, text in enumerate(file, start=1):
                    if not text.endswith(b"\n"):
                        break
                    try:
                        line = json.loads(text)
                        ends |= line["ends"]
                        self._tally(line)
                    except (ValueError, KeyError, TypeError) as error:
                        raise UserError(f"{path}:{number}: not a line of this file ({error}); force=true") from None
                    whole += len(text)
        _truncated(path, whole).close()
        return ends


def _lines(preferences: Iterable[Preference]) -> list[str]:
    """The rows of a problem, each once."""
    return list({encode(to_row(preference)): None for preference in preferences})


def _partial(name: str) -> str:
    return name if name == QUARANTINE else name.replace(".jsonl", ".partial.jsonl")


def _truncated(path: Path, size: int) -> BinaryIO:
    """The file, opened to append, with everything after `size` bytes gone."""
    file = path.open("ab")
    if file.tell() < size:
        raise UserError(f"{path} is shorter than {FINISHED} says; it was changed from outside: start with force=true")
    file.truncate(size)
    file.seek(0, 2)
    return file
