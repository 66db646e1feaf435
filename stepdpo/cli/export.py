"""`stepdpo export`: the model of a finished training as a folder that other programs open, with its card."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import stepdpo
from stepdpo.cli.export_prompts import prompts_of, write_prompts
from stepdpo.cli.export_source import adapter_base, base_of, model_of, training_of
from stepdpo.cli.export_words import ExportSettings
from stepdpo.cli.hub import push, token
from stepdpo.core.errors import UserError
from stepdpo.data.template_card import CARD, card
from stepdpo.models.base_files import CONFIG as MODEL_CONFIG
from stepdpo.models.integrity import ADAPTER_CONFIG
from stepdpo.models.shards import INDEX, cast_file, write_shards
from stepdpo.models.start_adapter import ADAPTER, BASE
from stepdpo.models.value_head import FILE as VALUE_HEAD
from stepdpo.report.model_card import Exported, model_card, on_hub
from stepdpo.runtime.atomic_io import read_json, sync_folder
from stepdpo.runtime.disk_space import writing
from stepdpo.runtime.manifest import started_on
from stepdpo.runtime.secrets import without_environment

README = "README.md"
EXPORTED = "exported"
"""Key of the template's card: that a folder is an export, which a later one may replace."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def export(run: Path, settings: ExportSettings, gguf: bool = False) -> Path:
    """Write the folder, whole or not at all, and print what others call to open it; returns it.

    Raises UserError for a run that has not finished, a folder that is taken, an adapter whose base is gone; Outage
    where the disc is full or the hub does not answer.
    """
    source, training = model_of(run), training_of(run)
    base = base_of(training)
    beside = "" if settings.merge else adapter_base(source, base, settings)
    out = settings.out or run / "export"
    _refuse_taken(out, run, settings.force)
    if settings.push:
        token()  # before hours of writing
    prompts = prompts_of(source, started_on(training))
    scratch = out.absolute().with_name(f".{out.name}.tmp")
    try:
        with writing(f"the export {out}", scratch):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            written = _write(source, scratch, settings, beside)
            write_prompts(prompts, scratch)
            _mark(scratch, settings)
            known = Exported(
                out.name if settings.out else run.name, settings.base or base, settings.license, written, prompts.told,
                prompts.example, not settings.merge, (scratch / VALUE_HEAD).is_file(),
            )  # fmt: skip
            (scratch / README).write_text(model_card(run, training, known), encoding="utf-8")
            _refuse_secrets(scratch)
            _put_in_place(scratch, out)
    except OSError as error:
        raise UserError(f"out: {out} cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # there only where something went wrong
    print(f"{out}: {written}\n{prompts.told}")
    if not settings.license:
        print("the card states no licence: license=apache-2.0, or another of the hub's words, does")
    if gguf:
        print(gguf_command(out, settings.dtype, settings.merge, beside))
    if settings.push:
        print(f"pushed to {push(out, settings.push, settings.private)}")
    return out


def gguf_command(out: Path, dtype: str, merged: bool, base: str = "") -> str:
    """What llama.cpp's own converters are called with, in its folder."""
    kind = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}.get(dtype, "auto")
    target = f"{out.absolute()}.gguf"
    if merged:
        return f"python convert_hf_to_gguf.py {out.absolute()} --outfile {target} --outtype {kind}"
    source = f"--base-model-id {base}" if on_hub(base) else f"--base {base}"
    return f"python convert_lora_to_gguf.py {out.absolute()} {source} --outfile {target} --outtype {kind}"


def _refuse_taken(out: Path, run: Path, force: bool) -> None:
    place = out.resolve()
    if place == run.resolve() or run.resolve().is_relative_to(place) or place.is_relative_to((run / "model").resolve()):
        raise UserError(f"out: {out} is the run itself, or holds it; choose another folder")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"out: {out} is a file or a link; choose another folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not force:
        raise UserError(f"out: {out} already exists: force=true replaces it")
    if EXPORTED not in card(out):
        raise UserError(f"out: {out} is no export of stepdpo, so force=true leaves it alone; choose another folder")


def _write(source: Path, scratch: Path, settings: ExportSettings, base: str) -> str:
    """The weights and whatever lies beside them; a sentence about them."""
    dtype = getattr(torch, settings.dtype) if settings.dtype else None
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        weights = path.suffix == ".safetensors" and path.name != VALUE_HEAD
        if path.is_file() and not weights and path.name != INDEX and name.parts[0] != ADAPTER:
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, scratch / name)
    merged_into = card(source).get("base")
    if settings.merge:
        count = write_shards(source, scratch, dtype, settings.shard)
        kind = _named(scratch / MODEL_CONFIG, dtype)
        files = "one file" if count == 1 else f"{count} files"
        if not (source / ADAPTER).is_dir():
            return f"The whole model in {kind}, in {files}."
        into = {
            "dequantised": "the dequantised 4-bit matrices it was trained beside",
            "original": "the matrices from before quantisation: another model than the one that was trained",
        }.get(str(merged_into), "its base")
        return f"The whole model in {kind}, in {files}; the adapter is merged into {into}."
    (scratch / MODEL_CONFIG).unlink()
    (scratch / "generation_config.json").unlink(missing_ok=True)
    cast_file(source / ADAPTER / ADAPTER_WEIGHTS, scratch / ADAPTER_WEIGHTS, dtype)
    found = read_json(source / ADAPTER / ADAPTER_CONFIG) | {"base_model_name_or_path": base}
    _write_json(scratch / ADAPTER_CONFIG, found)
    told = source / ADAPTER / BASE
    if told.is_file():
        shutil.copyfile(told, scratch / BASE)
    if not told.is_file() or not read_json(told).get("type"):
        return f"The adapter alone, for peft, beside {base}."
    return (
        f"The adapter alone, for peft, beside {base} in 4 bits: {BASE} has the words of transformers' "
        "BitsAndBytesConfig. Beside the base in 16 bits it is another model than the one that was trained."
    )


def _named(config: Path, dtype: torch.dtype | None) -> str:
    """The number format, written into the model's configuration where it has changed."""
    found: dict[str, Any] = read_json(config)
    if dtype is not None:
        name = str(dtype).removeprefix("torch.")
        found |= {key: name for key in ("dtype", "torch_dtype")}  # transformers 5 reads the one, 4 the other
        _write_json(config, found)
    return str(found.get("dtype") or found.get("torch_dtype") or "float32")


def _mark(scratch: Path, settings: ExportSettings) -> None:
    content = card(scratch) | {
        EXPORTED: {"dtype": settings.dtype or None, "merged": settings.merge, "stepdpo": stepdpo.__version__}
    }
    _write_json(scratch / CARD, content)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _refuse_secrets(scratch: Path) -> None:
    """UserError for a file in which a secret of the environment stands, wherever it came from."""
    for path in sorted(scratch.rglob("*")):
        if path.is_file() and path.suffix != ".safetensors":
            text = path.read_text(encoding="utf-8", errors="replace")
            if without_environment(text) != text:
                raise UserError(f"{path.relative_to(scratch)}: holds a secret of the environment; nothing was written")


def _put_in_place(scratch: Path, out: Path) -> None:
    """The finished folder under its name; an earlier export goes only once it is there."""
    for path in scratch.rglob("*"):
        if path.is_file():
            path.chmod(scratch.stat().st_mode & 0o666)  # safetensors gives its files to their owner alone
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(scratch)
    old = out.absolute().with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.is_dir():
        out.rename(old)
    scratch.rename(out)
    sync_folder(out.absolute().parent)
    shutil.rmtree(old, ignore_errors=True)
