"""DeepSpeed's process group: joined for one engine, and left so that another engine may follow in the same process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import torch


@contextmanager
def process_group(device: torch.device, timeout_minutes: int) -> Iterator[None]:
    """Within it the processes of a launcher, or this one alone, know each other."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    _alone_unless_launched()
    import deepspeed  # takes seconds, so only where it is used

    deepspeed.logger.setLevel("WARNING")
    # Its shared-memory all-reduce would be compiled at the first start (a minute) to do what gloo does.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(minutes=timeout_minutes)
    deepspeed.init_distributed(dist_backend=backend, verbose=False, timeout=timeout)
    new_group = torch.distributed.new_group
    # DeepSpeed makes groups of its own, for which torch's own patience would hold: 30 minutes, or 10 on GPUs.
    torch.distributed.new_group = partial(new_group, timeout=timeout)
    try:
        yield
    finally:
        torch.distributed.new_group = new_group
        torch.distributed.destroy_process_group()


def _alone_unless_launched() -> None:
    """Without a launcher this is the only process."""
    if "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
