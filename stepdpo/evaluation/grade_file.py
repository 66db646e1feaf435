"""`stepdpo grade FILE.jsonl`: grade responses that are already on disc."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stepdpo.core.errors import UserError, nearest
from stepdpo.core.protocols import Grader
from stepdpo.core.types import CORRECT, UNPARSED, WRONG, Grade, Problem
from stepdpo.evaluation.graders.official import Official
from stepdpo.evaluation.graders.pool import GradeMany, graders
from stepdpo.evaluation.graders.strict import Strict
from stepdpo.runtime.atomic_io import write_text
from stepdpo.runtime.progress import Progress

GRADERS: dict[str, Callable[[], Grader]] = {"official": Official, "strict": Strict}
RESPONSE, ANSWER = ("response", "prediction"), ("answer", "gold", "answers")
CHUNK = 256
"""Rows graded between two steps of the bar."""


def grade_file(path: Path, grader: str = "strict", out: Path | None = None) -> dict[str, Any]:
    """Grade every row of a JSONL file and print the totals, which are also returned.

    A row holds `response` (or `prediction`) and `answer` (or `gold`): text, a number or a list of texts that must all
    be given. `problem` and `id` are optional. With `out`, one verdict a row is written there, all or nothing.
    """
    if grader not in GRADERS:
        raise UserError(f"--grader: {nearest(grader, GRADERS)} (got {grader!r})")
    if out is not None and out.resolve() == path.resolve():
        raise UserError(f"--out: {out} is the file to be graded; choose another name")
    rows = list(_rows(path))
    if not rows:
        raise UserError(f"{path}: holds no rows; expected one JSON object a line")
    with graders() as grade_many:
        grades = _grade(rows, GRADERS[grader](), grade_many)
    if out is not None:
        _write(out, rows, grades)
    totals = _totals(grader, grades)
    print(
        f"{path.name}: {totals['accuracy']:.2%} correct ({totals[CORRECT]} of {totals['n']}), {totals[WRONG]} wrong, "
        f"{totals[UNPARSED]} unparsed, {totals['timeouts']} timed out; grader {grader}"
    )
    return totals


def _rows(path: Path) -> Iterator[tuple[Any, str, Problem]]:
    """(id, response, problem) of each row; the id is the row's own or None."""
    try:
        # Bytes, split at newlines alone: str.splitlines also splits at characters that stand within JSON strings.
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not a JSON object ({error}); expected one row a line") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object with 'response' and 'answer', got {type(row).__name__}")
        response = _column(row, RESPONSE, where)
        if not isinstance(response, str):
            raise UserError(f"{where}: 'response' must be text, got {type(response).__name__}")
        answers = _answers(_column(row, ANSWER, where), where)
        question = row.get("problem") or row.get("question") or ""
        yield row.get("id"), response, Problem(id=str(number), question=str(question), answers=answers)


def _column(row: dict[str, Any], names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if name in row:
            return row[name]
    raise UserError(f"{where}: no column {names[0]!r} (nor {' nor '.join(map(repr, names[1:]))}); it has {sorted(row)}")


def _answers(value: Any, where: str) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or any(isinstance(v, bool) or not isinstance(v, str | int | float) for v in values):
        raise UserError(f"{where}: 'answer' must be text, a number or a list of texts, got {value!r:.80}")
    return tuple(str(v) for v in values)


def _grade(rows: list[tuple[Any, str, Problem]], grader: Grader, grade_many: GradeMany) -> list[Grade]:
    grades: list[Grade] = []
    # Nothing in a file or a pipe, where the totals stand alone.
    with Progress("response", len(rows), enabled=sys.stdout.isatty()) as progress:
        for start in range(0, len(rows), CHUNK):
            chunk = [(response, problem) for _, response, problem in rows[start : start + CHUNK]]
            grades += grade_many(chunk, grader)
            progress.advance(len(chunk))
    return grades


def _write(out: Path, rows: list[tuple[Any, str, Problem]], grades: list[Grade]) -> None:
    lines = []
    for index, ((name, _, _), grade) in enumerate(zip(rows, grades, strict=True)):
        own = {} if name is None else {"id": name}
        verdict = {"grade": grade.verdict, "extracted": grade.extracted, "reason": grade.reason}
        lines.append(json.dumps({"index": index} | own | verdict) + "\n")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, "".join(lines))
    except OSError as error:
        raise UserError(f"--out: {out} cannot be written ({error.strerror})") from None


def _totals(grader: str, grades: list[Grade]) -> dict[str, Any]:
    verdicts = Counter(grade.verdict for grade in grades)
    return {
        "grader": grader,
        "n": len(grades),
        **{verdict: verdicts[verdict] for verdict in (CORRECT, WRONG, UNPARSED)},
        "timeouts": sum(grade.reason.endswith("; timeout") for grade in grades),
        "accuracy": verdicts[CORRECT] / len(grades),
    }
