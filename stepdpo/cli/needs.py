"""What the parts of a job need and may not have: files, packages, a GPU. Looked for before any worker starts.

A part says the same itself once it is opened, where that is on another machine; here it costs no more than a look.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from stepdpo.cli import multinode
from stepdpo.core.errors import UserError
from stepdpo.core.package_data import packaged
from stepdpo.crew.processes import ProcessesExecutor
from stepdpo.crew.ray import RayExecutor
from stepdpo.data.readers import locate
from stepdpo.evaluation.evaluate import refuse_unasked_scorer
from stepdpo.evaluation.seeds import under_seeds
from stepdpo.generation.vllm import NEEDS_CHECKPOINT, VllmSampler
from stepdpo.models.attention.registry import FLEX_NEEDS, Attention
from stepdpo.models.load import Fresh, must_exist
from stepdpo.models.start_adapter import look as look_at_adapter
from stepdpo.pairs.config import PairsConfig, refuse_without_checker
from stepdpo.pairs.engine.context import needs_file
from stepdpo.runtime.devices import gpus
from stepdpo.training.engine.settings import NO_GPU, Device


def look(spec: Any) -> None:
    """UserError for what is needed and not there; `spec` holds the parts of a verb, or some of them."""
    _models(spec)
    refuse_unasked_scorer(spec)
    if (seeds := getattr(spec, "seeds", None)) is not None:
        under_seeds(spec.decode, seeds)
    _data(spec)
    if isinstance(spec, PairsConfig):
        refuse_without_checker(spec)
    parts = [getattr(spec, name, None) for name in _used(spec)]
    within = [getattr(part, "base", None) for part in parts]  # of an adapter
    for part in (*within, *parts):  # the inner ones first: what they advise holds for both
        package, advice = getattr(part, "package", ("", ""))
        if package and PathFinder.find_spec(package) is None:
            raise UserError(advice)
    _hosts(getattr(spec, "engine", None))
    _devices(spec)


def _used(spec: Any) -> list[str]:
    """Names of the parts that are opened; a judge is there whether or not a way of making pairs asks it."""
    names = [name for name in vars(spec) if name != "judge"]
    if isinstance(spec, PairsConfig) and "judge" in spec.pairs.needs:
        names.append("judge")
    if isinstance(spec, PairsConfig) and needs_file(spec.pairs):
        names = ["pairs"]
    return names


def _models(spec: Any) -> None:
    """Folders of models, as their parts would say it once everything else is loaded."""
    for name in ("model", "reference_model"):
        model = getattr(spec, name, None)
        path = model if isinstance(model, str) else getattr(model, "path", None)
        if isinstance(path, str) and not (isinstance(spec, PairsConfig) and needs_file(spec.pairs)):
            must_exist(path, packaged(path), name)
    if isinstance(start := getattr(getattr(spec, "adapter", None), "start", None), str):
        look_at_adapter(start)
    for name in ("positive", "negative") if isinstance(spec, PairsConfig) else ():  # those of pairs=critical
        if isinstance(path := getattr(spec.pairs, name, None), str):
            must_exist(path, packaged(path), f"pairs.{name}")
    if isinstance(getattr(spec, "sampler", None), VllmSampler) and isinstance(spec.model, Fresh):
        raise UserError(NEEDS_CHECKPOINT)


def _data(spec: Any) -> None:
    for name in ("dataset", "task", "pairs"):
        path = getattr(getattr(spec, name, None), "path", None)
        if isinstance(path, str):
            try:
                locate(path)
            except UserError as error:
                raise UserError(f"{name}.path: {error}") from error


def _hosts(engine: Any) -> None:
    if hostfile := getattr(engine, "hostfile", None):
        multinode.read_hosts(Path(hostfile))


def _devices(spec: Any) -> None:
    """UserError for a GPU that is not here, where the work is not done on other machines."""
    crew, device = getattr(spec, "crew", None), str(getattr(getattr(spec, "sampler", None), "device", ""))
    if ":" in device and isinstance(crew, ProcessesExecutor | RayExecutor):
        raise UserError(
            f"sampler.device={device}: every worker of the crew has a GPU of its own, and knows it as `cuda`; "
            "CUDA_VISIBLE_DEVICES says which ones there are"
        )
    if gpus():
        return
    engine = getattr(spec, "engine", None)
    if not getattr(engine, "hostfile", None):
        if getattr(engine, "device", None) is Device.cuda:
            raise UserError(f"engine.{NO_GPU}")
        if getattr(spec, "attention", None) is Attention.flex:
            raise UserError(FLEX_NEEDS)
    if device.startswith("cuda") and not isinstance(crew, RayExecutor):
        raise UserError(f"sampler.{NO_GPU}")
