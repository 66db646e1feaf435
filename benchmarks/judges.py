"""How often roll-outs find the first wrong step, and at what cost. `make bench-judges`.

python -m benchmarks.judges                wrong solutions of the shipped miniature; the exact checker is the truth
python -m benchmarks.judges --problems 40  fewer of them
python -m benchmarks.judges --of runs/x    how many pairs of a run on tinymath are right, by the checker

From before every step of every wrong solution 32 roll-outs are made, once. The judge's own code then runs on what was
recorded: with n roll-outs on as many disjoint parts of the record as there are, up to four.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import OmegaConf

from benchmarks.judges_table import Case, Found, Roll, summary, tables
from benchmarks.machine import machine, versions
from stepdpo.cli.job_config import LAUNCH_KEYS
from stepdpo.cli.overrides import composed
from stepdpo.core.config import build
from stepdpo.core.steps import split_steps
from stepdpo.core.types import CORRECT, WRONG, Grade, Problem
from stepdpo.crew.groups import groups
from stepdpo.data.preference_file import from_row
from stepdpo.data.template_card import resolve
from stepdpo.evaluation.graders.pool import graders
from stepdpo.evaluation.graders.strict import Strict
from stepdpo.pairs.config import PairsConfig
from stepdpo.pairs.engine.context import Context
from stepdpo.pairs.engine.requests import Generate, GradeAnswers, Requests, Result
from stepdpo.pairs.engine.result_log import PREFERENCES
from stepdpo.pairs.engine.scheduler import Scheduler
from stepdpo.pairs.judges.rollouts import Rollouts, SearchStrategy
from stepdpo.pairs.solutions import SampledBatch, distinct, read_solutions
from stepdpo.runtime.atomic_io import read_jsonl, write_json
from stepdpo.tinymath.checker import TinymathChecker
from stepdpo.tinymath.problems import problems

RESULTS = Path(__file__).with_name("judges.json")
MOST = 32
"""Roll-outs recorded before every step."""
CURVE = (2, 4, 8, 16, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=230)
    parser.add_argument("--each", type=int, default=2, help="most wrong solutions of one problem")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--of", type=Path, default=None, help="a run folder of step pairs: judge these instead")
    options = parser.parse_args()
    if options.of:
        print(shares(options.of))
        return
    words = [f"limit={options.problems}", f"sampler.device={options.device}", "sampler.progress=false"]
    spec = _spec(words)
    began = time.monotonic()
    recorder = Recorder(options.each)
    context = record(spec, recorder)
    seconds = time.monotonic() - began
    print(f"{len(recorder.cases)} wrong solutions, {recorder.tokens:,} tokens in {seconds:.0f} s", flush=True)
    results = summary(recorder.cases, curves(recorder.cases, context))
    facts = {"problems": options.problems, "each": options.each, "machine": machine(), "versions": versions()}
    write_json(options.out, {**facts, "rolled_tokens": recorder.tokens, **results})
    print(tables(results))


def curves(cases: Sequence[Case], context: Context) -> dict[tuple[str, int], list[list[Found]]]:
    """Every search with every number of roll-outs that the record allows: `posterior` takes up to four times n."""
    found = {}
    for search in SearchStrategy:
        for n in CURVE[:3] if search is SearchStrategy.posterior else CURVE:
            found[search.value, n] = judged(Rollouts(n, search=search), n, cases, context)
    return found | {
        ("at once", n): judged(Rollouts(n, at_first=n, search=SearchStrategy.binary), n, cases, context) for n in CURVE
    }


def shares(run: Path) -> str:
    """Markdown: pairs of which the rejected step is the first wrong one and the chosen step is right."""
    known = {problem.question: problem for problem in problems("preference", 10_000)}
    facts = []
    for row in read_jsonl(run / PREFERENCES):
        pair = from_row(row)
        right, wrong = (
            TinymathChecker().first_error(known[pair.question], split_steps(pair.prefix + step + rest)[1])
            for step, rest in ((pair.chosen, pair.chosen_rest), (pair.rejected, pair.rejected_rest))
        )
        step = pair.meta["step"]
        facts.append((pair.meta.get("prefix_rate", 1.0), wrong == step, right is None or right > step))
    lines = [
        "| solve rate before the step | pairs | wrong step exact | right step right | both |",
        "|---|---|---|---|---|",
    ]
    for least in (0.0, 0.25, 0.5):
        kept = [fact for fact in facts if fact[0] >= least] or [(0.0, False, False)]
        parts = [sum(f[1] for f in kept), sum(f[2] for f in kept), sum(f[1] and f[2] for f in kept)]
        lines.append(f"| >= {least} | {len(kept)} | " + " | ".join(f"{part / len(kept):.1%}" for part in parts) + " |")
    return "\n".join(lines)


def _spec(words: Sequence[str]) -> PairsConfig:
    plain: Any = OmegaConf.to_container(composed("pairs", words), resolve=True)
    spec = build({name: value for name, value in plain.items() if name not in LAUNCH_KEYS})
    assert isinstance(spec, PairsConfig)
    return spec


def record(spec: PairsConfig, recorder: Recorder) -> Context:
    """Work through the problems; the cases are in the recorder afterwards."""
    template: Any = spec.template
    template, _ = resolve(template, spec.model.source)
    context = Context(template, spec.model.tokenizer(), spec.sampling, spec.task.checker)
    with spec.sampler.open(spec.model) as sampler, graders() as grade_many:
        scheduler = Scheduler(sampler, spec.sampling, lambda items: grade_many(items, Strict()))
        for group in groups(problems("preference", spec.limit or 1), spec.live, workers=1):
            recorder.tokens += sum(finished.tokens for finished in scheduler.run(group, recorder, context))
            print(f"{len(recorder.cases)} wrong solutions, {recorder.tokens:,} tokens", flush=True)
    return context


@dataclass
class Recorder:
    """A method that makes no pairs: it rolls out every prefix of every wrong solution."""

    needs: ClassVar[frozenset[str]] = frozenset()
    each: int
    cases: list[Case] = field(default_factory=list)
    tokens: int = 0

    def __call__(self, problem: Problem, context: Context) -> Requests:
        prompt = context.prompt(problem)
        (completions,) = yield Generate((prompt.text,), context.sampling.n)
        (solutions,) = yield from read_solutions([SampledBatch("s", "", prompt.joint, completions)], Counter())
        wrong = distinct([s for s in solutions if not s.correct])[: self.each]
        prefixes = list(dict.fromkeys(s.prefix(i) for s in wrong for i in range(len(s.steps))))
        if not prefixes:
            return Result()
        fresh = yield Generate(tuple(prompt.text + prompt.joint + prefix for prefix in prefixes), MOST)
        texts = [[prefix + c.text for c in some] for prefix, some in zip(prefixes, fresh, strict=True)]
        grades = iter((yield GradeAnswers(tuple(text for some in texts for text in some))))
        rolls = {
            prefix: [Roll(c, next(grades).verdict == CORRECT and c.finish != "length") for c in some]
            for prefix, some in zip(prefixes, fresh, strict=True)
        }
        for one in wrong:
            assert context.checker is not None
            error = context.checker.first_error(problem, one.steps)
            self.cases.append(Case(problem, one, error, [rolls[one.prefix(i)] for i in range(len(one.steps))]))
        return Result()


def judged(judge: Rollouts, n: int, cases: Sequence[Case], context: Context) -> list[list[Found]]:
    """Verdicts on every case, one a part of its record."""
    parts = min(4, MOST // n)
    return [[_verdict(judge, case, context, part * n) for part in range(parts)] for case in cases]


def _verdict(judge: Rollouts, case: Case, context: Context, start: int) -> Found:
    """Run the judge on a record: roll-outs of a prefix are taken from it in turn, from `start` on and round its end."""
    prompt = context.prompt(case.problem)
    prefixes = [case.solution.prefix(i) for i in range(len(case.solution.steps))]
    places = {prompt.text + prompt.joint + prefix: i for i, prefix in enumerate(prefixes)}
    right = {prefixes[i] + r.completion.text: r.right for i, some in enumerate(case.rolls) for r in some}
    taken: Counter[int] = Counter()
    tokens = 0
    requests = judge(case.problem, case.solution, context)
    reply: Any = None
    while True:
        try:
            request = requests.send(reply)
        except StopIteration as end:
            return Found(end.value.error, tokens, sum(taken.values()))
        if isinstance(request, GradeAnswers):
            reply = [Grade(CORRECT if right[text] else WRONG, "", "") for text in request.responses]
        else:
            assert isinstance(request, Generate)
            at = places[request.prompts[0]]
            some = [case.rolls[at][(start + taken[at] + i) % MOST] for i in range(request.n)]
            taken[at] += request.n
            tokens += sum(roll.completion.tokens for roll in some)
            reply = [[roll.completion for roll in some]]


if __name__ == "__main__":
    main()
