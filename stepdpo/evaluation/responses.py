"""The responses of an evaluation, kept as they come, so that one that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stepdpo.core.types import Completion
from stepdpo.generation.decoded import Cost, Decoded, Response
from stepdpo.runtime.atomic_io import encode, write_text
from stepdpo.runtime.run_folder import RESPONSES

CHUNK = 256
"""Problems that are answered before their responses are written: enough to fill a device, few enough to lose."""
Answer = Callable[[Sequence[int]], Sequence[Decoded]]
"""(numbers of the prompts) -> what a decoder came to for each."""


def answered(prompts: Sequence[str], key: str, answer: Answer, folder: Path, resume: bool) -> list[Decoded]:
    """What a decoder came to, prompt by prompt. With `resume`, what an earlier attempt left in `folder` is kept.

    It is taken if it was made under the same `key` and from the same prompts. Chunks begin at the same problems
    either way, so that a resumed evaluation computes what an uninterrupted one does.
    """
    path = folder / RESPONSES
    kept = list(_kept(path, prompts, key)) if resume else []
    done = kept if len(kept) == len(prompts) else kept[: len(kept) // CHUNK * CHUNK]
    if done:
        print(f"{len(done)} of {len(prompts)} problems were answered before", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, _lines([{"of": key}, *_rows(prompts, done)]))
    with path.open("a", encoding="utf-8", newline="\n") as file:
        for first in range(len(done), len(prompts), CHUNK):
            some = answer(range(first, min(first + CHUNK, len(prompts))))
            file.write(_lines(_rows(prompts[first:], some)))
            file.flush()
            os.fsync(file.fileno())
            done = [*done, *some]
    return done


def _kept(path: Path, prompts: Sequence[str], key: str) -> Iterator[Decoded]:
    """Responses in the order of the prompts, up to the first that is torn or another prompt's."""
    try:
        lines = path.read_bytes().split(b"\n")
        if json.loads(lines[0]) != {"of": key}:
            return
        for prompt, line in zip(prompts, lines[1:], strict=False):
            row = json.loads(line)
            if row.pop("prompt") != _hash(prompt):
                return
            yield _decoded(row)
    except (OSError, ValueError, KeyError, TypeError):
        return


def _rows(prompts: Sequence[str], decoded: Sequence[Decoded]) -> list[dict[str, Any]]:
    return [{"prompt": _hash(prompt), **asdict(one)} for prompt, one in zip(prompts, decoded, strict=False)]


def _decoded(row: Mapping[str, Any]) -> Decoded:
    """The inverse; KeyError or TypeError for a row that is none."""
    responses = [Response(**{**one, "completion": Completion(**one["completion"])}) for one in row["responses"]]
    return Decoded(tuple(responses), Cost(**row["cost"]))


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(encode(row) + "\n" for row in rows)


def _hash(prompt: str) -> str:
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]
