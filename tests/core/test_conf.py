"""The configuration is the object: every file names a dataclass, has exactly its fields, and builds its part."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol

import pytest
from omegaconf import DictConfig, OmegaConf

from stepdpo.cli.job_config import LAUNCH_KEYS
from stepdpo.cli.overrides import composed
from stepdpo.core import protocols
from stepdpo.core.config import TARGET, build
from stepdpo.core.package_data import conf
from stepdpo.crew.protocols import Executor
from stepdpo.data.problem_stream import TaskSpec
from stepdpo.data.validation import DatasetSpec
from stepdpo.generation.decoded import Decoder
from stepdpo.generation.step_scorer import StepScorer
from stepdpo.models.load import ModelSpec
from stepdpo.models.lora import Adapter
from stepdpo.pairs.engine.context import Judge, PairMethod
from stepdpo.tokens.batch_sampler import steps_per_epoch
from stepdpo.tokens.lengths import Equal
from stepdpo.tokens.pair_scores import Loss
from stepdpo.training.engine.settings import EngineSpec
from stepdpo.training.guard import Guard


class _Optim(Protocol):
    def lr_at(self, step: int, total: int) -> float: ...


SEAMS: dict[str, type] = {
    "algo": Loss,
    "level": protocols.Level,
    "template": protocols.Template,
    "sampler": protocols.SamplerSpec,
    "pairs": PairMethod,
    "judge": Judge,
    "crew": Executor,
    "decode": Decoder,
    "scorer": StepScorer,
    "model": ModelSpec,
    "adapter": Adapter,
    "dataset": DatasetSpec,
    "task": TaskSpec,
    "optim": _Optim,
    "engine": EngineSpec,
    "guard": Guard,
    "track": protocols.TrackerSpec,
}
"""What each group's options must offer. A new group needs a line here."""
VALUES = {"experiment", "recipe"}
"""Groups that hold values for others, no parts."""
PARTS = sorted(path for path in conf().glob("*/*.yaml") if path.parent.name not in VALUES)
ROOTS = sorted(path.stem for path in conf().glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (conf() / "experiment").glob("*.yaml"))
RECIPES = sorted(path.stem for path in (conf() / "recipe").glob("*.yaml"))


def named(path: Path) -> str:
    return f"{path.parent.name}={path.stem}"


def target_of(node: Any) -> Any:
    module, _, name = node[TARGET].rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)


def fields_of(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind) if field.init}


def nested(node: Any) -> list[Any]:
    """The node and every part within it."""
    if isinstance(node, dict):
        inner = [part for value in node.values() for part in nested(value)]
        return [node, *inner] if TARGET in node else inner
    return [part for item in node for part in nested(item)] if isinstance(node, list) else []


def members(protocol: type) -> set[str]:
    """What a protocol asks for: its methods and annotated attributes."""
    asked = {name for name in vars(protocol) if not name.startswith("_")} | set(protocol.__annotations__)
    return asked | ({"__call__"} if "__call__" in vars(protocol) else set())


def built(config: DictConfig) -> Any:
    """What a worker would build: everything but the settings of the launch."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return build({key: value for key, value in plain.items() if key not in LAUNCH_KEYS})


def test_every_group_has_a_seam() -> None:
    groups = {path.parent.name for path in conf().glob("*/*.yaml")}
    assert groups == set(SEAMS) | VALUES


@pytest.mark.parametrize("path", PARTS, ids=named)
def test_keys_are_fields(path: Path) -> None:
    """Nothing hidden, nothing dead; so too in nested parts."""
    for node in nested(OmegaConf.to_container(OmegaConf.load(path))):
        kind = target_of(node)
        assert dataclasses.is_dataclass(kind)
        assert set(node) - {TARGET} == fields_of(kind), node[TARGET]


@pytest.mark.parametrize("path", PARTS, ids=named)
def test_parts_are_what_their_seam_asks(path: Path) -> None:
    node = OmegaConf.load(path)
    if any(OmegaConf.is_missing(node, key) for key in node):
        kind = target_of(node)
        assert all(hasattr(kind, name) or name in fields_of(kind) for name in members(SEAMS[path.parent.name]))
        return
    part = build(node)
    assert part.__dataclass_params__.frozen
    for name in members(SEAMS[path.parent.name]):
        assert hasattr(part, name), name


@pytest.mark.parametrize("path", PARTS, ids=named)
def test_parts_begin_with_a_sentence_about_themselves(path: Path) -> None:
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("root", ROOTS)
def test_roots_compose_and_build(root: str) -> None:
    assert dataclasses.is_dataclass(built(composed(root, [])))


@pytest.mark.parametrize("root", ROOTS)
def test_root_keys_are_fields(root: str) -> None:
    config = composed(root, [])
    keys = {str(key) for key in config} - set(LAUNCH_KEYS) - {TARGET}
    assert keys == fields_of(target_of(config))


@pytest.mark.parametrize("root", ROOTS)
def test_nested_settings_are_fields(root: str) -> None:
    """`batch.tokens`, `lengths.overlong`: sections without a target of their own."""
    config, spec = composed(root, []), built(composed(root, []))
    for key, value in OmegaConf.to_container(config, resolve=True).items():  # type: ignore[union-attr]
        if isinstance(value, dict) and TARGET not in value and dataclasses.is_dataclass(getattr(spec, str(key), None)):
            assert set(value) == fields_of(type(getattr(spec, str(key)))), key


def verb_of(experiment: str) -> str:
    """The root that has all the groups an experiment overrides; `train` where several do."""
    node = OmegaConf.load(conf() / "experiment" / f"{experiment}.yaml")
    groups = {str(next(iter(entry))).removeprefix("override /") for entry in node.get("defaults", [])}
    for root in ("train", "pairs", "eval"):
        known = {str(next(iter(e))) for e in OmegaConf.load(conf() / f"{root}.yaml").defaults if e != "_self_"}
        if groups <= known:
            return root
    raise AssertionError(f"no verb has {groups}")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiments_compose_and_build(experiment: str) -> None:
    assert dataclasses.is_dataclass(built(composed(verb_of(experiment), [f"experiment={experiment}"])))


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_suit_the_model_of_their_name(recipe: str) -> None:
    """A recipe changes something, and only what training knows."""
    plain = composed("train", [f"model={recipe}", "~recipe"])
    tuned = composed("train", [f"model={recipe}"])
    assert plain != tuned
    assert plain.keys() == tuned.keys()
    assert dataclasses.is_dataclass(built(tuned))


def test_the_command_line_beats_the_experiment_beats_the_recipe() -> None:
    node = OmegaConf.load(conf() / "recipe" / "tinymath_long.yaml")
    demo = composed("train", ["experiment=demo_step_dpo"])
    assert (demo.optim.lr, demo.eval_every) == (1e-4, node.eval_every)
    assert demo.optim.lr != node.optim.lr
    assert composed("train", ["experiment=demo_step_dpo", "optim.lr=3e-3"]).optim.lr == 3e-3


@pytest.mark.parametrize(
    "path",
    [p for p in PARTS if p.parent.name in ("algo", "level", "template", "model", "adapter", "dataset")],
    ids=named,
)
def test_every_option_composes_into_training(path: Path) -> None:
    config = composed("train", [f"{path.parent.name}={path.stem}"])
    assert config[path.parent.name][TARGET] == OmegaConf.load(path)[TARGET]


def test_the_recipes_of_the_papers() -> None:
    """Step-DPO's scripts (arXiv 2406.18629), at 7B and 72B."""
    for name, beta, epochs, template in (
        ("step_dpo_qwen2_7b", 0.5, 8, "alpaca"),
        ("step_dpo_qwen2_72b", 0.4, 4, "qwen2_boxed"),
    ):
        spec = built(composed("train", [f"experiment={name}"]))
        assert (spec.algo.beta, spec.epochs, spec.template.name) == (beta, epochs, template)
        assert (spec.batch.pairs, spec.optim.lr, spec.optim.schedule.value, spec.optim.warmup) == (
            128,
            5e-7,
            "cosine",
            0.1,
        )
        assert (spec.optim.weight_decay, spec.optim.beta1, spec.optim.beta2, spec.optim.clip) == (0.0, 0.9, 0.999, 1.0)
        assert (spec.lengths.max_length, spec.lengths.max_prompt_length, spec.seed) == (1024, 512, 42)


@pytest.mark.parametrize(
    ("name", "epochs", "updates"),
    [("step_dpo_qwen2_7b", 8, 672), ("article_qwen2_7b", 8, 672), ("step_dpo_qwen2_72b", 4, 336)],
)
def test_published_recipes_are_official_throughout(name: str, epochs: int, updates: int) -> None:
    """The rate of the first update, the number of updates, and what becomes of pairs that the cut makes equal."""
    spec = built(composed("train", [f"experiment={name}"]))
    assert spec.epochs * steps_per_epoch(10_795, spec.batch.pairs, spec.batch.partial) == updates
    assert spec.epochs == epochs
    assert spec.optim.lr_at(0, updates) == 0
    assert spec.optim.lr_at(-(-updates // 10), updates) == 5e-7
    assert spec.lengths.equal is Equal.official
