"""`python many.py LIST`: several trainings in the same processes, as importing DeepSpeed takes longer than they do.

LIST holds a `trainings.Job` a line. Each ends with an `exit.json`, as from a worker.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any


def main() -> None:
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import torch

    from stepdpo.cli import worker
    from stepdpo.core.config import config_folders

    warnings.filterwarnings("ignore")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.logger.setLevel("WARNING")
    deepspeed.init_distributed(dist_backend="gloo", verbose=False, timeout=timedelta(seconds=120))
    end = torch.distributed.destroy_process_group
    torch.distributed.destroy_process_group = lambda *_: None
    first = torch.distributed.get_rank() == 0
    for line in Path(sys.argv[1]).read_text().splitlines():
        job = json.loads(line)
        folder = Path(job["root"]) / job["name"]
        if first and job["of"]:
            _take_over(folder, job)
        torch.distributed.barrier()
        with config_folders([Path(__file__).parents[1] / "conf"]):  # parts of the tests' own, as of --config-dir
            result = worker.run_verb("train", folder, bool(job["of"]))
        if first:
            result.write(folder / "exit.json", rank=0)
        torch.distributed.barrier()
    end()


def _take_over(folder: Path, job: dict[str, Any]) -> None:
    source = Path(job["root"]) / job["of"]
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("config.yaml", "exit.json"))
    for part in job["gone"]:
        shutil.rmtree(folder / part)


main()
