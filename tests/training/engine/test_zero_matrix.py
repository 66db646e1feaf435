"""DeepSpeed with everything else: any two options meet, and two processes follow plain torch on one.

The plain run has its reference in the cache, keeps all activations and takes what fits into one piece. The whole
product would be thousands of trainings; test_zero_product.py takes one update of each.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from support.commands import metrics
from support.corrupted import corrupt
from support.trainings import Job, Runs

from stepdpo.data.preference_file import write_preferences
from stepdpo.tinymath.problems import problems

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

LOSSES = {
    "dpo": ("algo=dpo",),
    "tdpo1": ("algo=tdpo", "algo.form=tdpo1"),
    "tdpo2": ("algo=tdpo",),
    "kto": ("algo=kto",),
    "nca": ("algo=nca",),
    "dpop": ("algo=dpop", "algo.penalty=5"),
    "simpo": ("algo=simpo",),
    "cpo": ("algo=cpo",),
    "orpo": ("algo=orpo",),
    "wpo": ("algo=wpo",),
    "irpo": ("algo=dpo", "algo.sft_weight=1"),
    "sft": ("algo=sft",),
}
LEVELS = {
    "step": ("level=step",),
    "step-response": ("level=step", "level.prefix=response"),
    "instance": ("level=instance",),
    "instance-prompt": ("level=instance", "level.prefix=prompt"),
}
GROUPS = {"alone": ("batch.group=none",), "problems": ("batch.group=problem",)}
ADAPTERS = {"whole": (), "lora": ("adapter=lora", "adapter.rank=4", "optim.lr=1e-2")}
PLAIN: tuple[dict[str, tuple[str, ...]], ...] = (LOSSES, LEVELS, GROUPS, ADAPTERS)
"""What decides the trajectory; the rest must not."""
STAGES = {f"stage-{s}": (f"engine.stage={s}",) for s in range(4)}
SOURCES = {s: (f"reference={s}",) for s in ("cache", "online", "adapter_off")}
RECOMPUTED = {
    "kept": ("head=save",),
    "recomputed": ("engine.gradient_checkpointing=true", "head=recompute"),
}
TOKENS = {"large": ("batch.tokens=8192",), "small": ("batch.tokens=300",)}
KINDS = (*PLAIN, STAGES, SOURCES, RECOMPUTED, TOKENS)
COMMON = ("batch.pairs=8", "epochs=1", "save_every=0", "eval_every=0")


def possible(case: tuple[str, ...]) -> bool:
    return not ("adapter_off" in case and "whole" in case)


def covering(strength: int) -> list[tuple[str, ...]]:
    """Few cases in which any `strength` options that can meet do; each is the best of a seventeenth of all."""
    cases = [case for case in itertools.product(*KINDS) if possible(case)]

    def meetings(case: tuple[str, ...]) -> set[tuple[tuple[int, str], ...]]:
        return set(itertools.combinations(enumerate(case), strength))

    wanted = set().union(*map(meetings, cases))
    taken: list[tuple[str, ...]] = []
    for step in itertools.count():
        if not wanted:
            return taken
        some = cases[step % 17 :: 17]
        best = max(some, key=lambda case: len(meetings(case) & wanted))
        if meetings(best) & wanted:
            taken.append(best)
            wanted -= meetings(best)
    return taken


CASES = covering(2)


def words(case: tuple[str, ...], kinds: tuple[dict[str, tuple[str, ...]], ...]) -> list[str]:
    return [word for name, kind in zip(case, kinds, strict=True) for word in kind[name]]


def name(case: tuple[str, ...]) -> str:
    return "--".join(case)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, pairs_words: list[str], tiny_model: Path) -> Runs:
    folder = tmp_path_factory.mktemp("matrix")
    pairs = [
        corrupt(problem.question, problem.solution, number)
        for problem in problems("preference", 7)
        for number in range(3)
    ]
    write_preferences(pairs, folder / "chains.jsonl")
    kept = [w for w in pairs_words if not w.startswith(("dataset.", "batch.", "epochs", "eval_every", "save_every"))]
    common = [*kept, f"dataset.path={folder / 'chains.jsonl'}", *COMMON, "model=pretrained", f"model.path={tiny_model}"]
    runs = Runs(folder, common)
    for case in sorted({case[: len(PLAIN)] for case in CASES}):
        runs.local(name(case), *words(case, PLAIN))
    for case in CASES:
        runs.write(name(case), *words(case, KINDS), "engine=zero", "engine.dtype=float32")
    done = runs.together([Job(name(case)) for case in CASES], patience=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    return runs


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_it_follows_plain_torch(runs: Runs, case: tuple[str, ...]) -> None:
    answer = runs.outcome(name(case))
    assert answer["code"] == 0, answer["message"]
    local, zero = metrics(runs.root / name(case[: len(PLAIN)])), metrics(runs.root / name(case))
    assert len(local) == len(zero) == 3
    for ours, theirs in zip(local, zero, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if key in ("rewards/accuracies", "chosen_fell") and ours["step"] == 1:
                continue  # margins and log-ratios are 0 there, and their signs are rounding
            assert theirs[key] == pytest.approx(value, **tolerance(case, key)), (ours["step"], key)


def tolerance(case: tuple[str, ...], key: str) -> dict[str, Any]:
    """Sums of some hundred nats are known to about 1e-4 in fp32, and every update hands that on to the next."""
    if case[0] in ("kto", "dpop"):  # dpop's penalty is five times a log-ratio
        return {"rel": 1e-3, "abs": 5e-4}
    plain = key in ("loss", "grad_norm", "lr", "epoch", "step", "logps/chosen")
    return {"rel": 1e-4, "abs": 1e-5} if plain else {"rel": 1e-4, "abs": 1e-4}
