"""`python -m stepdpo.cli.worker VERB FOLDER`: one process of a verb; reads the run folder, never Hydra."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from stepdpo.cli import multinode as nodes
from stepdpo.cli.processes import DIVERGED, EXIT, FAILED, OK, USER_ERROR
from stepdpo.core.config import build
from stepdpo.core.errors import Outage, UserError

PATIENCE = 20.0
"""Seconds that another process leaves to process 0 to say how a verb ended, as their words are the same."""


def main() -> int:
    """The exit code, which is also left in exit.json: that survives any launcher in between."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["train", "eval", "pairs"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="deepspeed|torch.distributed|transformers")
    if nodes.SIGNALS in os.environ:
        nodes.listen(Path(os.environ[nodes.SIGNALS]))
    code, message, outcome = _run(options.verb, options.folder, options.resume)
    _leave(options.folder / EXIT, int(os.environ.get("RANK", "0")), code, message, outcome)
    return code


def _leave(path: Path, rank: int, code: int, message: str, outcome: dict[str, Any]) -> None:
    """Write exit.json unless another process has: the first failure is the cause of the others.

    A launcher ends all processes once one has failed, so the others wait for process 0, which has more to tidy up.
    """
    if rank and code == OK:
        return
    until = time.monotonic() + (PATIENCE if rank and code != FAILED else 0.0)
    while time.monotonic() < until and not path.exists():
        time.sleep(0.1)
    if not path.exists():
        scratch = path.with_name(f".{path.name}.{rank}")
        scratch.write_text(json.dumps({"code": code, "message": message, "outcome": outcome}))
        scratch.replace(path)


def _run(verb: str, folder: Path, resume: bool) -> tuple[int, str, dict[str, Any]]:
    from stepdpo.runtime.signals import Interrupted
    from stepdpo.training.loop import Diverged

    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return OK, "", _verb(verb, folder, resume)
    except UserError as error:
        return USER_ERROR, str(error), {}
    except Outage as error:
        return FAILED, str(error), {}
    except Diverged as error:
        return DIVERGED, str(error), {}
    except Interrupted as error:
        return 128 + error.signum, str(error), {}
    except KeyboardInterrupt:
        return 130, "stopped at once", {}
    except Exception as error:
        traceback.print_exc()
        return FAILED, f"{type(error).__name__}: {error}", {}


def _verb(verb: str, folder: Path, resume: bool) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from stepdpo.models.load import without_progress_bars

    without_progress_bars()
    spec = build(OmegaConf.load(folder / "config.yaml"))
    if verb == "train":
        from stepdpo.training.trainer import train

        return train(spec, folder, resume)
    if verb == "eval":
        from stepdpo.evaluation.evaluate import evaluate

        return evaluate(spec, folder)
    from stepdpo.pairs.build import build_pairs

    return build_pairs(spec, folder, resume)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while nothing is open yet needs no traceback
    sys.exit(main())
