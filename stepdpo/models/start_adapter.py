"""An adapter that training starts from: a folder in peft's format, looked at, read, and put into a model's layers.

What is not understood is refused: an adapter that is loaded in part is another model than the one that was trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stepdpo.core.errors import UserError
from stepdpo.models.fingerprint import fingerprint
from stepdpo.models.integrity import ADAPTER_CONFIG, CONFIG, few, is_pointer

ADAPTER = "adapter"
"""In a model's folder: the adapter alone, for `PeftModel.from_pretrained(base, folder / ADAPTER)`."""
BASE = "base.json"
"""In an adapter's folder: from which weights the base was that it was trained beside, and how it was held."""
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
PREFIX = "base_model.model."
PARTS = (".lora_A.weight", ".lora_B.weight")
SHAPE = ("r", "lora_alpha", "use_rslora", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
PATTERNS = ("rank_pattern", "alpha_pattern")
"""Settings that say what is adapted and how; others are of the training that made the adapter."""
OTHERS = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save", "target_parameters", "layer_replication",
    "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "velora_config", "monteclora_config",
    "kasa_config", "megatron_config",
)  # fmt: skip
"""Settings by which an adapter is more, or something else, than W + s B A of linear layers."""
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Ways of drawing the first A and B that leave the base as it is; others (pissa, olora, ...) took them out of W."""


@dataclass(frozen=True)
class StartAdapter:
    """What a folder holds."""

    folder: str
    """As the user named it."""
    settings: Mapping[str, Any]
    """Of SHAPE and PATTERNS, those that adapter_config.json has."""
    weights: Mapping[str, tuple[Tensor, Tensor]]
    """Name of a layer in the model without adapters -> (A, B), of shapes (rank, in) and (out, rank), as in the file."""

    def fill(self, layers: Mapping[str, Any], name: str) -> None:
        """Copy A and B into peft's layers, by their adapter of that name. UserError where they are others."""
        if lacking := sorted(set(layers) - set(self.weights)):
            raise UserError(f"adapter.start: {self._file} has no weights for {few(lacking)}")
        if more := sorted(set(self.weights) - set(layers)):
            raise UserError(f"adapter.start: the model, as {ADAPTER_CONFIG} adapts it, has no layer for {few(more)}")
        pairs = [
            (f"{layer}{PARTS[place]}", read, (module.lora_A, module.lora_B)[place][name].weight)
            for layer, module in layers.items()
            for place, read in enumerate(self.weights[layer])
        ]
        if wrong := [
            f"{one} is {tuple(read.shape)} and should be {tuple(own.shape)}"
            for one, read, own in pairs
            if read.shape != own.shape
        ]:
            raise UserError(f"adapter.start: weights in {self._file} have other shapes than here: {few(sorted(wrong))}")
        with torch.no_grad():
            for _, read, own in pairs:
                own.copy_(read)

    @property
    def _file(self) -> Path:
        return Path(self.folder) / WEIGHTS


def read(folder: str) -> StartAdapter:
    """UserError for what is damaged, not understood or no number."""
    settings = look(folder)
    file = Path(folder) / WEIGHTS
    found: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (no mapping)
                layer, part = _place(name, file)
                found.setdefault(layer, {})[part] = _sound(opened.get_tensor(name), name, file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"adapter.start: {file} is damaged or cut off ({error})") from error
    halves = sorted(f"{layer}{part}" for layer, parts in found.items() for part in PARTS if part not in parts)
    if halves or not found:
        raise UserError(f"adapter.start: {file} lacks {few(halves) or 'weights'}")
    weights = {layer: (parts[PARTS[0]], parts[PARTS[1]]) for layer, parts in found.items()}
    return StartAdapter(folder, {key: settings[key] for key in (*SHAPE, *PATTERNS) if key in settings}, weights)


def look(folder: str) -> dict[str, Any]:
    """Its settings. UserError for a folder that cannot be an adapter to start from; no weight is read."""
    path = Path(folder)
    file = path / ADAPTER_CONFIG
    if not file.is_file():
        raise UserError(f"adapter.start: {_what_else(folder)}")
    for one in (file, path / WEIGHTS):
        if one.is_file() and is_pointer(one):
            raise UserError(f"adapter.start: {one} is a pointer of git-lfs and not the file itself: git lfs pull")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        assert isinstance(settings, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise UserError(f"adapter.start: {file} is damaged ({error or 'no object of settings'})") from error
    if problem := _not_understood(settings):
        raise UserError(f"adapter.start: {file}: {problem}")
    if not (path / WEIGHTS).is_file():
        pickled = (path / PICKLE).is_file()
        advice = f"; {PICKLE} is a pickle, which runs code when it is opened: save it as safetensors" if pickled else ""
        raise UserError(f"adapter.start: {folder!r} holds no {WEIGHTS}{advice}")
    return settings


def doubt(folder: str, model: Path | None, told: Mapping[str, Any]) -> str:
    """What is odd about putting an adapter beside the model of this folder, which BASE would tell so; "" if nothing.

    UserError for a model into which that very adapter is merged already.
    """
    of_model = model / ADAPTER if model else None
    if of_model and (of_model / ADAPTER_CONFIG).is_file() and fingerprint(of_model) == fingerprint(Path(folder)):
        raise UserError(
            f"adapter.start: the adapter in {folder!r} is merged into {str(model)!r} already; give the model that "
            "it was trained beside, or leave adapter.start out"
        )
    file = Path(folder) / BASE
    if not file.is_file():  # of another program
        return ""
    try:
        before = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"adapter.start: {file} is damaged ({error})") from error
    start = f"adapter.start: the adapter in {folder!r} was trained beside"
    if before.get("weights") != told.get("weights"):
        return f"{start} a base with other weights than the model's ({BASE}); with these it is another model"
    if before.get("type") != told.get("type"):
        held = [f"in {kind}" if kind else "that is not quantised" for kind in (before.get("type"), told.get("type"))]
        return f"{start} a base {held[0]}, and is now put beside one {held[1]}: the reference is that, not what it was"
    return ""


def _what_else(folder: str) -> str:
    """What a folder without adapter_config.json is."""
    path = Path(folder)
    for within in (ADAPTER, f"model/{ADAPTER}"):
        if (path / within / ADAPTER_CONFIG).is_file():
            return f"{folder!r} holds no {ADAPTER_CONFIG}; the adapter is {path / within}"
    if (path / CONFIG).is_file():
        return f"{folder!r} is a whole model and no adapter; a training starts from it by model={folder}"
    if path.is_dir():
        return f"{folder!r} holds no {ADAPTER_CONFIG}; it should be an adapter in peft's format"
    hub = "" if folder.startswith(("/", ".", "~")) or folder.count("/") != 1 else "; one of the hub is fetched first"
    return f"there is no folder {folder!r}{hub}"


def _not_understood(settings: Mapping[str, Any]) -> str:
    """What keeps an adapter from being W + s B A of linear layers, beside a base as it is; "" if nothing."""
    if settings.get("peft_type") != "LORA":
        return f"peft_type is {settings.get('peft_type')!r}; only LORA can be started from"
    if others := [key for key in OTHERS if settings.get(key)]:
        return f"{', '.join(others)}: only plain LoRA of linear layers can be started from"
    if settings.get("bias", "none") != "none":
        return f"bias is {settings['bias']!r}: biases were trained too, and only plain LoRA can be started from"
    way = settings.get("init_lora_weights", True)
    if way not in PLAIN_STARTS:
        return f"init_lora_weights is {way!r}, which changes the base too; have peft convert it to a plain LoRA"
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1:
        return f"r is {rank!r} and should be a whole number from 1"
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not alpha > 0:
        return f"lora_alpha is {alpha!r} and should be a number above 0"
    return "" if settings.get("target_modules") else "target_modules names no layers"


def _place(name: str, file: Path) -> tuple[str, str]:
    """(layer, part) of a name in the file."""
    for part in PARTS:
        if name.startswith(PREFIX) and name.endswith(part):
            return name.removeprefix(PREFIX).removesuffix(part), part
    raise UserError(f"adapter.start: {file} holds {name}, which is no A or B of a linear layer")


def _sound(tensor: Tensor, name: str, file: Path) -> Tensor:
    if not tensor.is_floating_point() or not bool(torch.isfinite(tensor.float()).all()):
        raise UserError(f"adapter.start: {name} in {file} is not finite")
    return tensor
