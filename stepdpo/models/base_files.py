"""What a checkpoint takes over from the model it was trained from, so that other programs read both alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
UNCHANGED = (
    "tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.tiktoken",
    "chat_template*", "additional_chat_templates/*", "generation_config.json", "LICENSE*", "NOTICE*",
)  # fmt: skip
"""Files that training does not change."""


@dataclass(frozen=True)
class BaseFiles:
    """The files beside a model's weights, held in memory: the base may be moved while a run goes on."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    """Name in the folder -> content, of those that training does not change."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Its config.json; empty, as the files are, for a model that was made and not loaded."""


def read_base(folder: Path | None) -> BaseFiles:
    """The files of a folder in Hugging Face format."""
    if folder is None:
        return BaseFiles()
    found = sorted({path for pattern in UNCHANGED for path in folder.glob(pattern) if path.is_file()})
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    return BaseFiles(files, json.loads((folder / CONFIG).read_text(encoding="utf-8")))


def take_over(base: BaseFiles, tokenizer: Any, folder: Path) -> None:
    """Beside weights that transformers saved: the base's files to the byte, and a configuration as the base's is."""
    for name, content in base.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    if not base.files:
        tokenizer.save_pretrained(folder)
    _edit(folder / TOKENIZER_CONFIG, _tokenizer_of_any_version)
    _edit(folder / CONFIG, lambda saved: config_of_any_version(saved, base.config))
    # safetensors gives its files to their owner alone, whatever the folder allows.
    for file in folder.iterdir():
        if file.is_file():
            file.chmod(folder.stat().st_mode & 0o666)


def config_of_any_version(saved: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that transformers 4 and 5 read alike: what 5 saved, the base's own words, and those of 4.

    4 knows no `rope_parameters`, and would take the rotary base for 10,000 without a word.
    """
    decided = ("dtype", "tie_word_embeddings")  # the training's: the base may have other ones
    whole = {**saved, **{key: value for key, value in base.items() if key not in decided}}
    if "dtype" in saved:
        whole["torch_dtype"] = saved["dtype"]
    ropes = saved.get("rope_parameters") or {}
    rope = ropes.get("full_attention", ropes)
    if "rope_theta" in rope:
        whole.setdefault("rope_theta", rope["rope_theta"])
        scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
        whole.setdefault("rope_scaling", scaling if rope.get("rope_type", "default") != "default" else None)
    if "partial_rotary_factor" in rope:
        whole.setdefault("partial_rotary_factor", rope["partial_rotary_factor"])
    if local := ropes.get("sliding_attention"):
        whole.setdefault("rope_local_base_freq", local["rope_theta"])
    return whole


def _tokenizer_of_any_version(config: Mapping[str, Any]) -> dict[str, Any]:
    """Two words of transformers 5, which 4 stops at, as both know them."""
    whole = dict(config)
    if whole.get("tokenizer_class") == "TokenizersBackend":
        whole["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(whole.get("extra_special_tokens"), list):
        whole["additional_special_tokens"] = whole.pop("extra_special_tokens")
    return whole


def _edit(path: Path, change: Any) -> None:
    """Written anew only where something changes: a copied file stays as it is, to the byte."""
    if not path.is_file():
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    after = change(before)
    if after != before:
        path.write_text(json.dumps(after, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
