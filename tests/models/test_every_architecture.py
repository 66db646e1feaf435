"""Every decoder of the installed transformers: right on token trees, or refused by name; and the docs say which."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from models.test_families import BATCH, sequences
from support import architectures
from support.architectures import RIGHT

from stepdpo.core.errors import UserError
from stepdpo.models.attention.registry import Attention, register, tree_inputs

DOCS = Path(__file__).parents[2] / "docs" / "models.md"


def table(verdicts: dict[str, str]) -> str:
    """As docs/models.md has it: a line a verdict, the right ones first."""
    names: dict[str, list[str]] = {}
    for name, verdict in sorted(verdicts.items()):
        names.setdefault(verdict, []).append(f"`{name}`")
    order = sorted(names, key=lambda verdict: (verdict != RIGHT, verdict))
    return "".join(f"| {verdict} | {len(names[verdict])} | {', '.join(names[verdict])} |\n" for verdict in order)


@pytest.mark.slow
def test_every_decoder_is_right_or_refused() -> None:
    transformers.logging.set_verbosity_error()
    verdicts = {}
    for name, kind in architectures.classes().items():
        try:
            verdicts[name] = architectures.verdict(name, kind, BATCH, sequences())
        except Exception as error:
            raise AssertionError(f"{name}: {error}") from error
    text = DOCS.read_text(encoding="utf-8")
    if f"transformers {transformers.__version__}" in text:
        assert table(verdicts) in text, table(verdicts)


@pytest.mark.parametrize("kind", [Attention.runs, Attention.dense])
def test_a_mask_that_the_model_makes_itself_is_refused(kind: Attention) -> None:
    """`doge` picks its keys by such a mask, and read others without it: log-probabilities off, and no error."""
    small = {"num_hidden_layers": 1, "hidden_size": 32, "head_dim": 8}
    config = architectures.config_of("doge", transformers.DogeForCausalLM, **small)
    config._attn_implementation = register(kind)
    model = transformers.DogeForCausalLM(config)
    inputs = {"input_ids": BATCH.input_ids_RL, "position_ids": BATCH.position_ids_RL} | tree_inputs(BATCH)
    with pytest.raises(UserError, match="doge gives its attention attention_mask of its own"):
        model.model(**inputs)


@pytest.mark.parametrize("given", ["attention_mask", "position_bias", "s_aux", "block_indices", "unheard_of"])
def test_whatever_an_attention_is_given_besides_the_tree_is_refused(given: str) -> None:
    module = torch.nn.Module()
    attend = transformers.AttentionInterface()[register()]
    query = torch.randn(1, 2, BATCH.input_ids_RL.shape[1], 8)
    tree = tree_inputs(BATCH)["tree"]
    plain = {"attention_mask": None, "tree": tree, "sliding_window": None, "position_ids": BATCH.position_ids_RL}
    attend(module, query, query, query, **plain)
    with pytest.raises(UserError, match=f"{given} of its own"):
        attend(module, query, query, query, **plain | {given: torch.ones(1)})
    with pytest.raises(UserError, match="sliding_window of its own"):
        attend(module, query, query, query, **plain | {"sliding_window": 4})
