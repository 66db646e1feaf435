"""Checkpoints that other programs open as they are, with what resuming needs beside them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stepdpo.core.errors import UserError
from stepdpo.core.protocols import Template
from stepdpo.data.template_card import card_entry, own_sources
from stepdpo.models import value_head
from stepdpo.models.base_files import BaseFiles, take_over
from stepdpo.models.save import SaveDtype, save_dtype, write_card, write_model
from stepdpo.runtime.atomic_io import read_json, write_json
from stepdpo.runtime.checkpoint_files import (
    begin_checkpoint,
    checkpoint_path,
    commit_checkpoint,
    newest_whole,
    prune,
    remove,
    tidy,
)
from stepdpo.runtime.disk_space import size_of, writing
from stepdpo.runtime.run_folder import keep_new
from stepdpo.tokens.step_scores import ValueHeadSpec
from stepdpo.training.engine.settings import Engine

STATE = "state"
TRAINER = "trainer.json"


class Checkpointer:
    """Saves and restores one run."""

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        tokenizer: Any,
        template: Template,
        fingerprint: str,
        keep: int,
        base: BaseFiles,
        dtype: SaveDtype,
        values: ValueHeadSpec | None = None,
        told: Mapping[str, Any] | None = None,
        merged_into: Callable[[], Mapping[str, Tensor]] | None = None,
        not_in_state: Mapping[str, str] | None = None,
    ) -> None:
        """`told` of the base of an adapter; `merged_into`: the weights that it is added to, if not its base's.

        `not_in_state`: setting -> what tells the files that a resumed run loads again.
        """
        self.not_in_state = dict(not_in_state or {})
        self.values = values
        self.told, self.merged_into = dict(told or {}), merged_into
        self.engine, self.folder, self.keep = engine, folder, keep
        self.tokenizer, self.fingerprint = tokenizer, fingerprint
        self.card, self.sources = card_entry(template, tokenizer), own_sources(template)  # as they are now
        self.base, self.dtype = base, save_dtype(dtype, base.config)
        self._bytes = 0
        """Of the last checkpoint."""
        self._surplus: Path | None = None

    def save(self, step: int, window: Mapping[str, float], surplus: bool = False) -> None:
        """checkpoints/step-NNNNNN: the model in Hugging Face format, and state/. Committed only when it is whole.

        `window` holds the sums since the last line of the log, so that a resumed run writes the same lines. One that is
        `surplus` makes no older one go, and is dropped by `save_model`. Raises Outage where the disc is full.
        """
        final = checkpoint_path(self.folder, step)
        scratch = final.with_name(f".{final.name}.tmp")
        with writing(f"the checkpoint of update {step}", scratch, self._bytes):
            if self.engine.rank == 0:
                begin_checkpoint(self.folder, step)
            self.engine.barrier()  # the folder is there before any process writes into it
            self.engine.save_state(scratch / STATE)
            self._write_model(scratch)
            if self.engine.rank == 0:
                world = self.engine.world_size
                trainer = {"step": step, "world": world, "data": self.fingerprint, "window": dict(window)}
                trainer |= {"not_in_state": self.not_in_state} if self.not_in_state else {}
                write_json(scratch / TRAINER, trainer)
            self.engine.barrier()  # and all have written before it is hashed and named
            if self.engine.rank == 0:
                commit_checkpoint(scratch, final)
        if self.engine.rank == 0:
            self._bytes = size_of(final)
            keep_new(self.folder)  # a run has begun: what it was to replace, by force, may go
            if surplus:
                self._surplus = final
            else:
                prune(self.folder, self.keep)  # older ones go only now that a newer one is whole
        self.engine.barrier()

    def save_model(self, folder: Path) -> None:
        """The finished model, put in place whole. Raises Outage where the disc is full."""
        scratch = folder.with_name(f".{folder.name}.tmp")
        with writing("the finished model (resume=true writes it from the last checkpoint)", scratch):
            if self.engine.rank == 0:
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir(parents=True)
            self.engine.barrier()
            self._write_model(scratch)
            if self.engine.rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
                scratch.rename(folder)
        if self.engine.rank == 0 and self._surplus:
            remove(self._surplus)
        self.engine.barrier()

    def _write_model(self, folder: Path) -> None:
        weights, head = self.engine.weights(), self.engine.value_head()
        if self.engine.rank != 0:
            return
        if self.values:
            value_head.write(folder, head, self.values.squash)
        # What ZeRO 3 yields where a parameter was not gathered; transformers would save it without a word.
        empty = [name for name, tensor in weights.items() if tensor.numel() == 0]
        if empty:
            raise RuntimeError(f"weights came out empty ({empty[0]}, ...): the checkpoint would be useless")
        original = self.merged_into() if self.merged_into else None
        write_model(self.engine.model, weights, folder, self.dtype, self.told, original)
        take_over(self.base, self.tokenizer, folder)
        for name, content in self.sources.items():
            (folder / name).write_bytes(content)
        merged = {"base": "dequantised" if original is None else "original", "quantised": self.told}
        write_card(
            folder, {**self.card, **(merged if "quantization_config" in self.told else {}), "run": self.folder.name}
        )

    def tidy(self) -> None:
        """Remove what killed processes left in the run folder."""
        if self.engine.rank == 0:
            tidy(self.folder)
        self.engine.barrier()

    def find(self) -> Path | None:
        """The newest whole checkpoint; UserError when it is not this run's to go on with. Nothing is loaded yet."""
        path, skipped = newest_whole(self.folder)
        if self.engine.rank == 0:
            for one in skipped:
                print(f"warning: skipped {one.path.name}: {'; '.join(one.problems[:3])}")
        if path is None:
            if self.engine.rank == 0:
                print("no checkpoint to resume from: starting anew")
            return None
        _ours(path)
        trainer = read_json(path / TRAINER)
        if trainer["data"] != self.fingerprint:
            raise UserError(f"{path}: was trained on other data than the configuration now names; use another run name")
        # ZeRO's shards are cut for a number of processes, and so are the shares of a step.
        if trainer["world"] != self.engine.world_size:
            raise UserError(
                f"{path}: was saved by {trainer['world']} processes and cannot be resumed by {self.engine.world_size}"
            )
        before = trainer.get("not_in_state", {})  # earlier versions kept none
        if changed := [name for name, now in self.not_in_state.items() if before.get(name, now) != now]:
            raise UserError(f"{path}: {' and '.join(changed)}: the files have changed since the run was started")
        return path

    def load(self, path: Path) -> tuple[int, dict[str, float]]:
        """Go back to a checkpoint; returns the updates it has seen, and its window."""
        trainer = read_json(path / TRAINER)
        self.engine.load_state(path / STATE)
        if self.engine.rank == 0:
            print(f"resuming after update {trainer['step']} ({path.name})")
        return int(trainer["step"]), dict(trainer["window"])


def _ours(path: Path) -> None:
    """A checkpoint's state is unpickled by DeepSpeed: only files of this very user are read."""
    for file in path.rglob("*"):
        if file.stat().st_uid != os.getuid():
            raise UserError(f"{file}: belongs to another user; a training state may hold code, so it is not opened")
