"""Whether weights and tokens are what a model needs. What is not there would be drawn at random, and trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from stepdpo.core.errors import UserError

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = "model.safetensors"
POINTER = b"version https://git-lfs"
"""How the small file begins that stands for a large one in a repository cloned without git-lfs."""


def refuse_damaged(folder: Path, path: str) -> None:
    """UserError unless a folder, named `path` by the user, holds a whole model. Only the heads of files are read."""
    if (folder / ADAPTER_CONFIG).is_file():
        whole = folder.parent if (folder.parent / CONFIG).is_file() else None
        hint = f"the model with it merged in is {whole}" if whole else "merge it into its base first (peft can)"
        raise UserError(f"model: {path!r} is an adapter (it has {ADAPTER_CONFIG}) and no model; {hint}")
    if not (folder / CONFIG).is_file():
        raise UserError(f"model: {path!r} holds no {CONFIG}; it should be a folder in Hugging Face format")
    for file in sorted(folder.iterdir()):
        if file.is_file() and is_pointer(file):
            raise UserError(f"model: {file} is a pointer of git-lfs and not the file itself; fetch it: git lfs pull")
    for file in weight_files(folder):
        try:
            with safe_open(file, "pt"):
                pass  # opening compares the sizes that its head names with the file's
        except FileNotFoundError:
            raise UserError(f"model: {file} is missing; its index names it") from None
        except (SafetensorError, OSError) as error:
            raise UserError(f"model: {file} is damaged or cut off ({error})") from error


def is_pointer(file: Path) -> bool:
    """Whether a file only stands for one that git-lfs has not fetched."""
    with file.open("rb") as opened:
        return opened.read(len(POINTER)) == POINTER


def weight_files(folder: Path) -> list[Path]:
    """The files that the index names; without one, the only file, where there is one."""
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        return [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else []
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return sorted(folder / name for name in names)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"model: {index} is damaged ({error})") from error


def refuse_incomplete(found: Mapping[str, Any], path: str) -> None:
    """UserError where a weight was not in the files, or has another shape there; `found` is transformers' account."""
    wrong = sorted(
        f"{name} is {tuple(there)} and should be {tuple(own)}" for name, there, own in found["mismatched_keys"]
    )
    if wrong:
        raise UserError(f"model: weights in {path!r} have other shapes than its {CONFIG} says: {few(wrong)}")
    if missing := sorted(found["missing_keys"]):  # tied ones are not among them
        raise UserError(f"model: weights are missing in {path!r}: {few(missing)}")
    # Some publishers leave in what training needed (further heads), so it is said and not refused.
    if (unused := sorted(found["unexpected_keys"])) and os.environ.get("RANK", "0") == "0":
        print(f"warning: model: weights in {path!r} that its {CONFIG} has no place for: {few(unused)}", flush=True)


def refuse_not_finite(model: Any, path: str) -> None:
    """UserError where a weight is not a number, or infinite."""
    if bad := sorted(_not_finite(model)):
        raise UserError(f"model: weights in {path!r} are not finite: {few(bad)}")


@torch.no_grad()
def _not_finite(model: Any) -> Iterator[str]:
    for name, parameter in model.named_parameters():
        # ZeRO 3 leaves an empty parameter behind and keeps this process's part beside it.
        values = getattr(parameter, "ds_tensor", parameter)
        # A sum of finite numbers may overflow; smallest and largest say the same without a copy of the weights.
        if values.numel() and not all(torch.isfinite(extreme) for extreme in torch.aminmax(values)):
            yield name


def refuse_unknown_tokens(tokenizer: Any, model: Any, path: str) -> None:
    """UserError for a tokenizer with a token that the embedding has no row for."""
    rows = model.get_input_embeddings().num_embeddings
    token, number = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if number >= rows:
        raise UserError(
            f"model: the tokenizer of {path!r} has more tokens than the embedding has rows ({rows:,}): "
            f"{token!r} is number {number:,}; resize the embedding, or take the tokenizer that belongs to it"
        )


def few(names: list[str], shown: int = 3) -> str:
    """The first names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
