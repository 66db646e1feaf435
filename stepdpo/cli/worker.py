"""`python -m stepdpo.cli.worker VERB FOLDER`: one process of a verb; reads the run folder, never Hydra."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from stepdpo.cli import multinode
from stepdpo.cli.job_result import EXIT_FILE, ExitCode, JobResult
from stepdpo.core.config import build, config_folders
from stepdpo.core.config_file import load_config
from stepdpo.core.errors import Outage, UserError
from stepdpo.runtime import artifact_cache
from stepdpo.runtime.run_folder import CONFIG
from stepdpo.runtime.run_lock import is_held_by
from stepdpo.runtime.secrets import redact_text
from stepdpo.runtime.terminal import guard_output
from stepdpo.runtime.worker_lock import register

PATIENCE = 20.0
"""Seconds that another process leaves to process 0 to say how a verb ended, as their words are the same."""
MOURNING = 4.0
"""Seconds that a process which lost touch with another leaves that one to say why, or the launcher to find it dead."""


def main() -> int:
    """The exit code, which is also left in exit.json: that survives any launcher in between."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["train", "eval", "pairs"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--command", default="")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--config-dir", type=Path, action="append", default=[])
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="deepspeed|torch.distributed|transformers")
    if multinode.SIGNALS in os.environ:
        multinode.listen(Path(os.environ[multinode.SIGNALS]))
    guard_output()
    rank = int(os.environ.get("RANK", "0"))
    try:
        leave = register(options.folder, rank, lambda: is_held_by(options.folder, options.command))
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return ExitCode.USER_ERROR  # with no word in exit.json, which is another command's
    with config_folders(options.config_dir):
        result = run_verb(options.verb, options.folder, options.resume)
    leave()
    _say_how(options.folder / EXIT_FILE, rank, result)
    return result.code


def run_verb(verb: str, folder: Path, resume: bool) -> JobResult:
    """Do the work of a verb in a run folder; every way in which it can end is a result."""
    from stepdpo.runtime.disk_space import no_space
    from stepdpo.runtime.signals import Interrupted
    from stepdpo.training.loop import Diverged  # torch comes with it, and signals are heard before that
    from stepdpo.training.watch import Drifted

    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on files may be open: unwind
        return JobResult(outcome=_verb(verb, folder, resume))
    except UserError as error:
        return JobResult(ExitCode.USER_ERROR, str(error))
    except (Outage, Drifted) as error:
        return JobResult(ExitCode.FAILED, str(error))
    except Diverged as error:
        return JobResult(ExitCode.DIVERGED, str(error))
    except Interrupted as error:
        return JobResult(128 + error.signum, str(error))
    except KeyboardInterrupt:
        return JobResult(128 + signal.SIGINT, "stopped at once")
    except Exception as error:
        if full := no_space(error, folder):
            return JobResult(ExitCode.FAILED, full)
        lost = lost_peers(error)
        if not (lost and _wait_for(folder / EXIT_FILE, MOURNING)):
            print(redact_text(traceback.format_exc()), file=sys.stderr, flush=True)
        where = "".join(f" in {note}" for note in getattr(error, "__notes__", []))
        if lost:
            rank = os.environ.get("RANK", "0")
            words = f"rank {rank} lost the other processes{where}: {str(error).splitlines()[0]}"
            return JobResult(ExitCode.FAILED, words, lost_peers=True)
        return JobResult(ExitCode.FAILED, f"{type(error).__name__}{where}: {error}")


def lost_peers(error: Exception) -> bool:
    """Whether a collective failed because another process did not take part, or not for long enough."""
    from torch.distributed import DistError

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return False
    # What gloo finds comes as a plain error.
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


def _say_how(path: Path, rank: int, result: JobResult) -> None:
    """Write exit.json unless another process has: the first failure is the cause of the others.

    A launcher ends all processes once one has failed, so the others wait for process 0, which has more to tidy up.
    """
    if rank and result.ok:
        return
    # An unforeseen failure is said at once: process 0 may hang in a collective that this one has left.
    _wait_for(path, PATIENCE if rank and result.code != ExitCode.FAILED else 0.0)
    if path.exists():
        return
    try:
        result.write(path, rank)
    except OSError as error:  # a full disc: the command sees it too
        print(f"{redact_text(result.message)} ({error.strerror}: {path})", file=sys.stderr, flush=True)


def _wait_for(path: Path, patience: float) -> bool:
    """Whether a file is there, now or within so many seconds."""
    until = time.monotonic() + patience
    while time.monotonic() < until and not path.exists():
        time.sleep(0.1)
    return path.exists()


def _verb(verb: str, folder: Path, resume: bool) -> dict[str, Any]:
    """Each verb imports its own: a worker loads no more than it needs."""
    from stepdpo.models.load import without_progress_bars

    without_progress_bars()
    artifact_cache.tidy()
    spec = build(load_config(folder / CONFIG))
    if verb == "train":
        from stepdpo.training.trainer import train

        return train(spec, folder, resume)
    if verb == "eval":
        from stepdpo.evaluation.evaluate import evaluate

        return evaluate(spec, folder, resume)
    from stepdpo.pairs.build import build_pairs

    return build_pairs(spec, folder, resume)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while nothing is open yet needs no traceback
    sys.exit(main())
