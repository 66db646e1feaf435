"""What is chosen on a machine with GPUs where no word says otherwise: vLLM samples, and all GPUs work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder

from omegaconf import DictConfig, open_dict

from stepdpo.cli.overrides import composed
from stepdpo.cli.shorthands import key_of
from stepdpo.core.config import TARGET
from stepdpo.core.package_data import PREFIX
from stepdpo.runtime.devices import gpus

TRANSFORMERS = "stepdpo.generation.transformers.TransformersSampler"
VLLM = "stepdpo.generation.vllm.VllmSampler"
PRETRAINED = "stepdpo.models.load.Pretrained"
HERE = "stepdpo.crew.local.LocalExecutor"
NO_SCORER = "stepdpo.generation.scorers.none.NoScorer"
LABELLED = ("stepdpo.data.processbench.ProcessBench", "stepdpo.evaluation.tinymath_steps.TinymathSteps")
"""Tasks that one process scores."""
REASONS = {
    "sampler": "sampler=vllm, as it is installed and there is a GPU; sampler=transformers samples without it",
    "crew": "crew=processes, as there are several GPUs; crew=here takes one",
}


@dataclass(frozen=True)
class Machine:
    """What a choice depends on."""

    gpus: int
    """Visible ones."""
    vllm: bool
    """Whether it is installed."""


def this_machine() -> Machine:
    """Told without importing anything heavy."""
    return Machine(len(gpus()), PathFinder.find_spec("vllm") is not None)


def machine_options(config: DictConfig, words: Sequence[str], machine: Machine) -> dict[str, str]:
    """Options of groups that are better here than those a configuration has, of those that no word is about.

    `config` is one of `stepdpo eval` or `stepdpo pairs`.
    """
    spoken = {key_of(word).partition(".")[0] for word in words}
    # An experiment is a study that is to be repeated as it was; pairs from a file ask no sampler.
    if "experiment" in spoken or "path" in (config.get("pairs") or {}):
        return {}
    options = {}
    sampler = config.sampler
    if "sampler" not in spoken and machine.gpus and machine.vllm and _suits_vllm(config):
        options["sampler"] = "vllm"
    of_each = 1 if options else _gpus_of(sampler)
    here = (config.get("crew") or {}).get(TARGET) == HERE and config.task.get(TARGET) not in LABELLED
    if here and "crew" not in spoken and of_each and machine.gpus // of_each > 1:
        options["crew"] = "processes"
    return options


def with_options(verb: str, config: DictConfig, options: Mapping[str, str]) -> DictConfig:
    """The same configuration with other options for some of its groups."""
    config = deepcopy(config)
    with open_dict(config):
        for group, option in options.items():
            config[group] = composed(verb, [f"{group}={option}"])[group]
    return config


def for_this_machine(
    verb: str, config: DictConfig, words: Sequence[str], say: bool = True
) -> tuple[DictConfig, dict[str, str]]:
    """(a configuration with what is better on this machine, those options); a user is told once a command, if `say`."""
    options = machine_options(config, words, this_machine())
    if say:
        for group in options:
            _say(REASONS[group])
    return (with_options(verb, config, options) if options else config), options


@cache
def _say(line: str) -> None:
    print(line, flush=True)


def _suits_vllm(config: DictConfig) -> bool:
    """Whether vLLM can and should sample in place of transformers."""
    model = config.model
    return (
        config.sampler.get(TARGET) == TRANSFORMERS
        # A scorer may look into the very model that samples, and vLLM leaves it no memory of the GPU.
        and (config.get("scorer") or {}).get(TARGET, NO_SCORER) == NO_SCORER
        and model.get(TARGET) == PRETRAINED
        # The miniature has answered before vLLM has started.
        and not str(model.get("path")).startswith(PREFIX)
    )


def _gpus_of(sampler: DictConfig) -> int:
    """How many a sampler takes; 0 where it takes none, or a certain one."""
    target = sampler.get(TARGET)
    if target == VLLM:
        return int(sampler.tensor_parallel)
    return int(target == TRANSFORMERS and sampler.device in ("auto", "cuda"))
