"""What is chosen where a machine has GPUs and no word says otherwise, on machines that are told, not looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig

from stepdpo.cli import machine_defaults
from stepdpo.cli.job_config import evaluation_config, split
from stepdpo.cli.machine_defaults import Machine, for_this_machine, machine_options, with_options
from stepdpo.cli.overrides import composed
from stepdpo.core.config import TARGET, build
from stepdpo.crew.local import LocalExecutor
from stepdpo.crew.processes import ProcessesExecutor
from stepdpo.generation.vllm import VllmSampler

CPU, CPU_VLLM = Machine(gpus=0, vllm=False), Machine(gpus=0, vllm=True)
ONE, ONE_VLLM = Machine(gpus=1, vllm=False), Machine(gpus=1, vllm=True)
EIGHT, EIGHT_VLLM = Machine(gpus=8, vllm=False), Machine(gpus=8, vllm=True)
MODEL = ("model=pretrained", "model.path=Qwen/Qwen2-7B-Instruct")


def config_of(verb: str, *words: str) -> DictConfig:
    return split(composed(verb, words))[1]


def chosen(verb: str, machine: Machine, *words: str) -> dict[str, str]:
    return machine_options(config_of(verb, *MODEL, *words), [*MODEL, *words], machine)


@pytest.mark.parametrize("verb", ["eval", "pairs"])
def test_vllm_on_a_gpu_where_it_is_installed(verb: str) -> None:
    assert chosen(verb, ONE_VLLM) == {"sampler": "vllm"}
    assert chosen(verb, EIGHT_VLLM)["sampler"] == "vllm"
    for machine in (CPU, CPU_VLLM, ONE, EIGHT):
        assert "sampler" not in chosen(verb, machine)


@pytest.mark.parametrize("verb", ["eval", "pairs"])
@pytest.mark.parametrize(
    "words",
    [
        ("sampler=transformers",),  # said so
        ("sampler=openai",),
        ("sampler.batch_tokens=4096",),  # a setting that vLLM has not
        ("model=tinymath", "model.path=pkg://tinymath/model"),  # answers before vLLM has started
        ("model=fresh", "~model.path"),  # not in the files that vLLM reads
    ],
)
def test_never_against_a_word_or_where_vllm_cannot(verb: str, words: tuple[str, ...]) -> None:
    given = words if "model=fresh" not in words else words[:1]
    config = config_of(verb, *(MODEL if not given[0].startswith("model") else ()), *given)
    assert "sampler" not in machine_options(config, given, ONE_VLLM)


def test_never_beside_a_scorer_or_for_a_study_or_without_a_sampler() -> None:
    assert chosen("eval", ONE_VLLM, "decode=best_of_n", "scorer=logprob") == {}
    assert machine_options(config_of("eval", *MODEL), [*MODEL, "experiment=mine"], EIGHT_VLLM) == {}
    assert chosen("pairs", EIGHT_VLLM, "pairs=recut", "pairs.path=trees.jsonl") == {}


def test_all_gpus_work_on_an_evaluation() -> None:
    assert chosen("eval", EIGHT) == {"crew": "processes"}
    assert chosen("eval", EIGHT, "decode=best_of_n", "scorer=logprob") == {"crew": "processes"}
    assert chosen("eval", EIGHT, "crew=here") == {}
    assert chosen("eval", ONE) == {}
    for task in ("processbench", "tinymath_steps"):  # scored by one process
        assert chosen("eval", EIGHT, f"task={task}", "scorer=logprob") == {}


def test_all_gpus_work_on_pairs() -> None:
    assert chosen("pairs", EIGHT) == {"crew": "processes"}
    assert chosen("pairs", EIGHT_VLLM) == {"sampler": "vllm", "crew": "processes"}
    assert chosen("pairs", EIGHT, "sampler.device=cuda") == {"crew": "processes"}
    assert chosen("pairs", EIGHT_VLLM, "sampler=vllm", "sampler.tensor_parallel=4") == {"crew": "processes"}
    for words in (
        ("crew=here",),
        ("crew=ray",),
        ("sampler.device=cpu",),
        ("sampler.device=cuda:3",),  # that one
        ("sampler=openai",),
        ("sampler=vllm", "sampler.tensor_parallel=8"),  # one worker has them all
    ):
        assert "crew" not in chosen("pairs", EIGHT_VLLM, *words)
    for machine in (CPU, CPU_VLLM, ONE):
        assert chosen("pairs", machine) == {}


def test_a_choice_is_an_option_as_a_word_makes_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine_defaults, "this_machine", lambda: EIGHT_VLLM)
    machine_defaults._say.cache_clear()
    config = config_of("pairs", *MODEL, "seed=3")
    for _ in range(2):
        better, options = for_this_machine("pairs", config, [*MODEL, "seed=3"])
    assert options == {"sampler": "vllm", "crew": "processes"}
    assert better == config_of("pairs", *MODEL, "seed=3", "sampler=vllm", "crew=processes")
    assert config.sampler[TARGET].endswith("TransformersSampler")  # as it was
    assert isinstance(build(better.sampler), VllmSampler)
    assert isinstance(build(better.crew), ProcessesExecutor)
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in said] == ["sampler=vllm", "crew=processes"]  # once


def test_evaluations_after_a_training_choose_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_defaults, "this_machine", lambda: ONE_VLLM)
    training = config_of("train", *MODEL)
    assert evaluation_config("gsm8k", [], training, Path("x")).sampler[TARGET].endswith("VllmSampler")
    monkeypatch.setattr(machine_defaults, "this_machine", lambda: EIGHT_VLLM)
    assert build(evaluation_config("gsm8k", [], training, Path("x")).crew) == ProcessesExecutor()
    assert build(evaluation_config("gsm8k", ["crew=here"], training, Path("x")).crew) == LocalExecutor()
    said = evaluation_config("gsm8k", ["sampler=transformers"], training, Path("x"))
    assert said.sampler[TARGET].endswith("TransformersSampler")


def test_nothing_better_changes_nothing() -> None:
    config = config_of("eval", *MODEL)
    assert with_options("eval", config, {}) == config
