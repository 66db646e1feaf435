"""A greedy evaluation beside `generate` of transformers: problems a second, and whether the responses are the same.

alone    `generate`, one problem at a time, on every so-manieth problem
batch    `generate` in left-padded batches of 32, in the order of the file
ours     `stepdpo eval` as a command; its seconds are from before the model is loaded to the last response

And what an evaluation that was killed half-way costs when it is resumed.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import decoding_runs as runs
from benchmarks.decoding_runs import TASK, TOKENS, Size
from benchmarks.sampling import Texts, generated
from stepdpo.core.types import Attempt
from stepdpo.data.template_card import resolve
from stepdpo.data.templates import NativeTemplate
from stepdpo.models.load import Pretrained
from stepdpo.report.tables import read_evaluations
from stepdpo.tokens.tokenization import question_prompt

BATCH = 32
ASKED = re.compile(r"([\d,]+) responses?, ([\d,]+) tokens in")
"""What the sampler prints of every call."""
POLL = 0.05
"""Seconds between two looks at a run that is to be stopped half-way."""


def speed(folder: Path, size: Size) -> dict[str, Any]:
    """Medians over rounds, in each of which every side has one turn."""
    torch.set_num_threads(1)  # as the command has
    spec = Pretrained("pkg://tinymath/model")
    model, tokenizer = spec.model("sdpa", torch.float32).eval(), spec.tokenizer()
    template, _ = resolve(NativeTemplate(), spec.source, tokenizer)
    sides: dict[str, list[tuple[float, float]]] = {"ours": [], "batch": [], "alone": []}
    written: dict[str, Texts] = {}
    for number in range(size.rounds):
        attempts, turn = _ours(folder / "speed", number, size.greedy)
        sides["ours"].append(turn)
        prompts = [question_prompt(template, one.question, (), tokenizer).text for one in attempts]
        every = max(1, len(prompts) // size.alone)
        for name, some, together in (("batch", prompts, BATCH), ("alone", prompts[::every], 1)):
            wall, busy = time.perf_counter(), time.process_time()
            written[name] = _generated(model, tokenizer, some, together)
            seconds = (time.perf_counter() - wall, time.process_time() - busy)
            sides[name].append((seconds[0] / len(some), seconds[1] / len(some)))
    mine = [[(one.response, one.tokens)] for one in attempts]
    return {
        "problems": len(attempts),
        "rounds": size.rounds,
        "alone": len(written["alone"]),
        "tokens": sum(one.tokens for one in attempts) / len(attempts),
        "same": {"batch": _same(mine, written["batch"]), "alone": _same(mine[::every], written["alone"])},
        "sides": {name: _rates(turns, sides["ours"]) for name, turns in sides.items()},
    }


def _ours(folder: Path, number: int, count: int) -> tuple[Sequence[Attempt], tuple[float, float]]:
    """The attempts, and wall and CPU seconds a problem; the CPU's are those of the whole command."""
    run = runs.evaluated(folder, f"round{number}", "tinymath", ("sampler.device=cpu",), (f"task.count={count}",))
    (found,) = read_evaluations(run)
    return found.attempts, (float(found.summary["seconds"]) / count, runs.cost_of(run)["cpu"] / count)


def _generated(model: Any, tokenizer: Any, prompts: Sequence[str], together: int) -> Texts:
    parts = (prompts[at : at + together] for at in range(0, len(prompts), together))
    return [texts for part in parts for texts in generated(model, tokenizer, part, 1, 0.0, TOKENS)]


def _same(ours: Texts, theirs: Texts) -> int:
    """Responses that are the same text of as many tokens."""
    return sum(mine == other for mine, other in zip(ours, theirs, strict=True))


def _rates(turns: Sequence[tuple[float, float]], ours: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Problems a second, and how many times as long as ours it takes, by the clock and by the CPU."""
    ratios = [[a / b for a, b in zip(one, mine, strict=True)] for one, mine in zip(turns, ours, strict=True)]
    return {
        "rate": 1 / median(wall for wall, _ in turns),
        "cpu_rate": 1 / median(busy for _, busy in turns),
        "times": median(wall for wall, _ in ratios),
        "cpu_times": median(busy for _, busy in ratios),
    }


def resumed(folder: Path, size: Size) -> dict[str, Any]:
    """An evaluation that is killed once half of the responses are written, and the same resumed."""
    folder = folder / "resumed"
    count = size.greedy
    words = ("model=tinymath", f"task={TASK}", f"task.count={count}", f"decode.max_tokens={TOKENS}")
    whole = runs.run(folder, "whole", "eval", *words)
    command = [sys.executable, "-m", "stepdpo", "eval", *words, f"runs={folder}", "run=killed"]
    with (folder / "killed.log").open("w") as out:
        process = subprocess.Popen(
            [*command, "force=true"], stdout=out, stderr=subprocess.STDOUT, env=runs.environment()
        )
        while process.poll() is None and written(folder / "killed") < count / 2:
            time.sleep(POLL)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = written(folder / "killed")
    with (folder / "again.log").open("w") as out:
        subprocess.run(
            [*command, "resume=true"], stdout=out, stderr=subprocess.STDOUT, env=runs.environment(), check=True
        )
    (one,), (other,) = (read_evaluations(folder / name) for name in (whole.name, "killed"))
    return {
        "problems": count,
        "kept": kept,
        "whole": asked(folder / "whole.log"),
        "again": asked(folder / "again.log"),
        "same": [a.response for a in one.attempts] == [a.response for a in other.attempts],
    }


def written(run: Path) -> int:
    """Problems of which a response is on disc, in whichever file; none of a run that has not begun."""
    files = [path for path in (run / "eval").rglob("*.jsonl") if path.is_file()]
    return max((sum(b'"response' in line for line in path.read_bytes().splitlines()) for path in files), default=0)


def asked(log: Path) -> dict[str, int]:
    """Responses and tokens that a command asked the model for."""
    found = ASKED.findall(log.read_text())
    responses, tokens = (sum(int(call[part].replace(",", "")) for call in found) for part in (0, 1))
    return {"responses": responses, "tokens": tokens}
