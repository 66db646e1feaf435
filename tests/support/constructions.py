"""The configuration of `stepdpo pairs`, composed and built, and small parts for it."""

from __future__ import annotations

from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stepdpo.core.config import build
from stepdpo.core.package_data import conf
from stepdpo.data.templates import TextTemplate
from stepdpo.models.load import Fresh
from stepdpo.pairs.config import PairsConfig

TEMPLATE = TextTemplate(name="plain", prompt="Q: {question}\nA:", joint="\n")
SMALL = Fresh(hidden_size=32, layers=1, intermediate_size=32)


def composed(*words: str) -> PairsConfig:
    with initialize_config_dir(str(conf()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose("pairs", overrides=list(words)), resolve=True)
    for key in ("run", "runs", "force", "resume"):
        node.pop(key)
    spec = build(node)
    assert isinstance(spec, PairsConfig)
    return spec
