"""`python -m stepdpo.worker VERB FOLDER`: one process of a verb; reads the run folder, never Hydra."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from stepdpo.config import build
from stepdpo.errors import UserError
from stepdpo.workers import DIVERGED, EXIT, FAILED, MEND, OK


def main() -> int:
    """The exit code; process 0 also leaves it in exit.json, which survives any launcher in between."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["train", "eval", "pairs"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="deepspeed|torch.distributed|transformers")
    code, message, outcome = _run(options.verb, options.folder, options.resume)
    if int(os.environ.get("RANK", "0")) == 0:
        text = json.dumps({"code": code, "message": message, "outcome": outcome})
        scratch = options.folder / f".{EXIT}"
        scratch.write_text(text)
        scratch.replace(options.folder / EXIT)
    return code


def _run(verb: str, folder: Path, resume: bool) -> tuple[int, str, dict[str, Any]]:
    from stepdpo.loop import Diverged
    from stepdpo.stopping import Interrupted

    try:
        return OK, "", _verb(verb, folder, resume)
    except UserError as error:
        return MEND, str(error), {}
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
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    spec = build(OmegaConf.load(folder / "config.yaml"))
    if verb == "train":
        from stepdpo.train import train

        return train(spec, folder, resume)
    if verb == "eval":
        from stepdpo.evaluate import evaluate

        return evaluate(spec, folder)
    from stepdpo.construct import construct

    return construct(spec, folder)


if __name__ == "__main__":
    sys.exit(main())
