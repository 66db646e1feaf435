"""TRL's side: its DPOTrainer, as shipped and at its best, on batches made by its own collator."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.rows import Row
from benchmarks.shapes import build, move
from benchmarks.sides import BETA, Side, Work

COMPACT = "trl.trainer.utils._use_triton"
"""What tells TRL whether to run its head on completion tokens alone ("compact"): true on GPUs, false on CPUs. The name
in this module decides nothing else; the choice of Triton kernels is made in trl.kernels, which stays as it is."""


def installed() -> bool:
    """Whether there is a TRL to measure against."""
    return importlib.util.find_spec("trl") is not None


def trl(work: Work) -> Side:
    """As shipped: the reference beside the policy, run at every step; the head as TRL chooses for the device."""
    policy, reference = (build(work.shape, dtype=work.dtype, device=work.device) for _ in range(2))
    move(policy)
    trainer = _trainer(work, policy, ref_model=reference)
    batch = _on(work, trainer.data_collator(examples(work.rows)))

    return Side("trl", lambda: trainer.compute_loss(policy, batch), None, policy)


def trl_best(work: Work) -> Side:
    """At its best: reference log-probabilities computed before, and the head on completion tokens alone."""
    policy = build(work.shape, dtype=work.dtype, device=work.device)
    trainer = _trainer(work, policy, precompute_ref_log_probs=True)
    plain = _on(work, trainer.data_collator(examples(work.rows)))

    def reference() -> Any:
        with compact():
            return trainer.compute_ref_log_probs(policy, plain)

    zeros = torch.zeros(len(work.rows), device=work.device)
    chosen, rejected = reference() if work.known else (zeros, zeros)
    # As the collator would hand them on from a precomputed data set.
    batch = {**plain, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    move(policy)

    def loss() -> Tensor:
        with compact():
            value: Tensor = trainer.compute_loss(policy, batch)
        return value

    return Side("trl_best", loss, reference, policy)


def examples(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as TRL's tokenisation would have left them."""
    return [{"prompt_ids": row.prompt, "chosen_ids": row.chosen, "rejected_ids": row.rejected} for row in rows]


@contextlib.contextmanager
def compact() -> Iterator[None]:
    """TRL's completion-only head, on any device."""
    with mock.patch(COMPACT, return_value=True):
        yield


def _on(work: Work, batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(work.device) for name, value in batch.items()}


def _trainer(work: Work, policy: Any, **settings: Any) -> Any:
    """A trainer around the policy. It must be given texts and a tokenizer, so it gets two words; batches are ours."""
    from datasets import Dataset

    library: Any = importlib.import_module("trl")
    reference = settings.pop("ref_model", None)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        return library.DPOTrainer(
            model=policy,
            ref_model=reference,
            args=library.DPOConfig(
                output_dir=folder,
                beta=BETA,
                max_length=None,
                bf16=work.dtype is torch.bfloat16,
                use_cpu=work.device == "cpu",
                gradient_checkpointing=False,
                report_to="none",
                disable_tqdm=True,
                **settings,
            ),
            train_dataset=Dataset.from_list([{"prompt": "yes", "chosen": " no", "rejected": " yes"}]),
            processing_class=_tokenizer(),
        )


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast
    words = Tokenizer(models.WordLevel({"<pad>": 0, "yes": 1, "no": 2}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return make(tokenizer_object=words, pad_token="<pad>", eos_token="<pad>", unk_token="<pad>")
