"""`stepdpo export`: what of a run is exported: its finished model, the training that made it, and its base."""

from __future__ import annotations

from pathlib import Path

from stepdpo.cli.export_words import ExportSettings
from stepdpo.core.config_file import load_config
from stepdpo.core.errors import UserError
from stepdpo.core.package_data import packaged
from stepdpo.models.base_files import CONFIG as MODEL_CONFIG
from stepdpo.models.fingerprint import fingerprint
from stepdpo.models.integrity import ADAPTER_CONFIG, refuse_damaged
from stepdpo.models.start_adapter import ADAPTER, BASE
from stepdpo.report.model_card import on_hub
from stepdpo.runtime.atomic_io import read_json
from stepdpo.runtime.run_folder import CONFIG, DATA, METRICS


def model_of(run: Path) -> Path:
    """The folder of the finished model; UserError says what there is instead."""
    model = run / "model"
    if (model / MODEL_CONFIG).is_file():
        refuse_damaged(model, str(model))
        return model
    if not (run / CONFIG).is_file():
        near = f"; it is in a run: {run.parent}" if (run.parent / CONFIG).is_file() else ""
        raise UserError(f"{run}: not the folder of a run (no {CONFIG}){near}")
    if (run / METRICS).is_file() or (run / "checkpoints").is_dir() or any(run.glob("round-*")):
        raise UserError(f"{run}: its training has not finished (no model/): resume=true goes on with it")
    raise UserError(f"{run}: holds no model; only what `stepdpo train` has finished is exported")


def training_of(run: Path) -> Path:
    """Where the data and the recipe of the model are told: the run, of rounds the training of the last."""
    if (run / DATA).is_file() or not (run / "rounds.json").is_file():
        return run
    last = run / f"round-{read_json(run / 'rounds.json')['model']}" / "train"
    return last if (last / CONFIG).is_file() else run


def base_of(training: Path) -> str:
    """Hub id or folder of what was trained; empty for a model that was made."""
    node = load_config(training / CONFIG).get("model") or {}
    path = dict(node).get("path")
    return packaged(str(path)) if path else ""


def adapter_base(source: Path, found: str, settings: ExportSettings) -> str:
    """What an adapter alone is opened beside: hub id or folder. UserError where there is none, or another one now."""
    folder = source / ADAPTER
    if not (folder / ADAPTER_CONFIG).is_file():
        raise UserError("merge=false: this run trained no adapter; adapter=lora and adapter=qlora do")
    base = settings.base or found
    if not base:
        raise UserError("merge=false: its base was made, not loaded, so nobody could open the adapter; leave it merged")
    if not on_hub(base) and not (Path(base) / MODEL_CONFIG).is_file():
        raise UserError(
            f"merge=false: its base {base} is not there; base=FOLDER or base=owner/name says where it is, and merged "
            "it needs none"
        )
    told = read_json(folder / BASE) if (folder / BASE).is_file() else {}
    if told and not on_hub(base) and fingerprint(Path(base)) != told.get("weights"):
        raise UserError(f"merge=false: {base} holds other weights than those that the adapter was trained beside")
    if settings.push and not on_hub(base):
        raise UserError(f"push: its base {base} is a folder of this machine; base=owner/name says where others find it")
    return base
