"""Metrics of a run: always `metrics.jsonl`, and Weights & Biases where asked. Tracking never stops a training."""

from __future__ import annotations

import json
import logging
import math
import netrc
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from omegaconf import OmegaConf

from stepdpo.core.config_file import load_config
from stepdpo.core.protocols import Tracker, TrackerSpec
from stepdpo.runtime.atomic_io import encode, write_text
from stepdpo.runtime.run_folder import METRICS
from stepdpo.runtime.secrets import redact, redact_text

NETWORK_SECONDS = 6.0
"""The longest that an unreachable server may hold up the start, and again the end, of a run."""
log = logging.getLogger(__name__)


class MetricsLog:
    """One JSON object a line, flushed. NaN and infinity are written as the strings that `float()` reads back.

    `resumed` is the step a run goes on from: lines after it, which will be written again, are removed, and so is
    a last line that was cut off. None keeps every whole line. A disc that fails costs one warning, then silence.
    """

    def __init__(self, path: Path, resumed: int | None = None) -> None:
        self.path = path
        self.broken = False
        with self._forgiving():
            self._repair(resumed)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Append one line."""
        if self.broken:
            return
        line = encode({"step": step} | {name: _finite(value) for name, value in metrics.items()})
        with self._forgiving(), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.broken = True
            log.warning("%s: no longer written (%s); training goes on", self.path, error)

    def _repair(self, resumed: int | None) -> None:
        if not self.path.exists():
            return
        text = self.path.read_bytes().decode("utf-8", errors="replace")
        # What follows the last line break is empty, or a line that was cut off in the midst of it.
        kept = "".join(line + "\n" for line in text.split("\n")[:-1] if _stays(line, resumed))
        if kept != text:
            write_text(self.path, kept)


@dataclass(frozen=True)
class NoTracking:
    """`metrics.jsonl` and nothing else."""

    @contextmanager
    def open(self, folder: Path, name: str, config: Mapping[str, Any], resumed: int | None = None) -> Iterator[Tracker]:
        """`name` and `config` are for trackers that keep them."""
        yield MetricsLog(folder / METRICS, resumed)


class Mode(Enum):
    """Where wandb writes."""

    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(frozen=True)
class Wandb:
    """`metrics.jsonl` and Weights & Biases, which writes inside the run folder.

    It is given the redacted config and the metrics, and no command line, source, git remote or console output.
    """

    project: str = "stepdpo"
    mode: Mode | None = None
    """None: what WANDB_MODE says; else online where a key is present, offline where there is none."""
    group: str | None = None
    """Joins the runs of one study."""
    tags: tuple[str, ...] = ()

    @contextmanager
    def open(self, folder: Path, name: str, config: Mapping[str, Any], resumed: int | None = None) -> Iterator[Tracker]:
        """Start, or go on with, the wandb run of this folder; one that fails leaves `metrics.jsonl` alone."""
        tracker = _WandbTracker(MetricsLog(folder / METRICS, resumed), self._start(folder, name, config))
        try:
            yield tracker
        except BaseException:
            tracker.finish(exit_code=1)
            raise
        tracker.finish(exit_code=0)

    def _start(self, folder: Path, name: str, config: Mapping[str, Any]) -> Any:
        first = self._mode()
        attempts = [(first, "")] if first != "online" else [(first, ""), ("offline", "-offline")]
        for mode, suffix in attempts:  # wandb does not free the id of a run that failed to start
            try:
                return self._init(folder, name, config, mode, _run_id(folder) + suffix)
            except Exception as error:  # whatever it is, training matters more
                log.warning("wandb (%s) did not start: %s", mode, redact_text(str(error)))
        return None

    def _init(self, folder: Path, name: str, config: Mapping[str, Any], mode: Any, identity: str) -> Any:
        import wandb

        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, save_code=False,
            x_disable_meta=True, x_disable_machine_info=True,  # the metadata holds argv
            init_timeout=NETWORK_SECONDS, finish_timeout=NETWORK_SECONDS,
        )  # fmt: skip
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or self.project, mode=mode, name=name,
            group=redact_text(self.group) if self.group else None, tags=[redact_text(tag) for tag in self.tags],
            id=identity, resume=None if mode == "offline" else "allow", dir=str(folder),
            config=redact(config), allow_val_change=True, settings=settings,
        )  # fmt: skip

    def _mode(self) -> Any:
        chosen = self.mode.value if self.mode else os.environ.get("WANDB_MODE", "").lower()
        return chosen or ("online" if _has_key() else "offline")


class _WandbTracker:
    """The file first, then wandb for as long as it works."""

    def __init__(self, metrics: MetricsLog, run: Any) -> None:
        self.metrics = metrics
        self.run = run

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.metrics.log(metrics, step)
        self._try("log", {name: float(value) for name, value in metrics.items()}, step=step)

    def finish(self, exit_code: int) -> None:
        self._try("finish", exit_code=exit_code)

    def _try(self, what: str, *values: Any, **options: Any) -> None:
        try:
            if self.run is not None:
                getattr(self.run, what)(*values, **options)
        except Exception as error:  # whatever it is, training matters more
            self.run = None
            log.warning("wandb failed to %s and is left alone from here on: %s", what, redact_text(str(error)))


class _Silent:
    """For all processes but the main one: one log is enough."""

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...


@contextmanager
def open_tracker(spec: TrackerSpec, folder: Path, rank: int, resumed: int | None) -> Iterator[Tracker]:
    """The tracker of a run folder for the process of this rank; it is told the folder's configuration, unresolved."""
    if rank != 0:
        yield _Silent()
        return
    path = folder / "config.yaml"
    node: Any = OmegaConf.to_container(load_config(path), resolve=False) if path.is_file() else {}
    with spec.open(folder, folder.name, node, resumed) as tracker:
        yield tracker


def _finite(value: float) -> float | int | str:
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(number)]


def _stays(line: str, resumed: int | None) -> bool:
    try:
        return resumed is None or int(json.loads(line)["step"]) <= resumed
    except (ValueError, KeyError, TypeError):
        return False


def _run_id(folder: Path) -> str:
    """The folder's own wandb id, so that a resumed run goes on with the same curve."""
    path = folder / "wandb" / "stepdpo-id"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, uuid.uuid4().hex[:12])
    return path.read_text(encoding="utf-8").strip()


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        import wandb

        host = urlparse(os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url).hostname
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    except Exception:  # no netrc, an unreadable one, no wandb: no key
        return False
