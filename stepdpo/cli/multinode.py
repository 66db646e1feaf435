"""Several machines: a hostfile, pdsh over ssh, and signals by way of the run folder, which all of them see.

On every machine DeepSpeed's `launch` starts one process a slot. Its `runner` is not used: told to stop, it would kill
every DeepSpeed launcher of the user on all machines, other trainings and unsaved ones among them.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from stepdpo.core.errors import UserError
from stepdpo.runtime.secrets import is_secret

SIGNALS = "STEPDPO_SIGNALS"
"""Environment variable of workers on several machines: the file in which their command writes signals."""
SIGNALS_FILE = ".signals"
EXPORTED = (
    "CUDA_DEVICE_", "CUDA_HOME", "DS_", "FI_", "GLOO_", "HF_", "HYDRA_", "LD_LIBRARY_PATH", "NCCL_", "OMP_", "PYTHON",
    "RDMAV_", "STEPDPO_", "TOKENIZERS_", "TORCH", "TRANSFORMERS_", "UCX_", "WANDB_",
)  # fmt: skip
"""Beginnings of the environment variables that go along to the other machines; never a secret one."""
LOCAL = ("localhost", "127.0.0.1")
POLL_SECONDS = 0.5
"""How often a worker reads the file of signals: soon enough for a person, seldom enough for a network's disc."""


def read_hosts(hostfile: Path) -> dict[str, int]:
    """Slots by host. DeepSpeed takes a hostfile that is not there for none at all, and would train on this machine."""
    try:
        lines = [line.partition("#")[0].split() for line in hostfile.read_text(encoding="utf-8").splitlines()]
        found = {host: int(slots.removeprefix("slots=")) for host, slots in filter(None, lines)}
    except OSError as error:
        raise UserError(f"engine.hostfile={hostfile}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"engine.hostfile={hostfile}: expected `host slots=8` on every line") from error
    if not found or min(found.values()) < 1:
        raise UserError(
            f"engine.hostfile={hostfile}: names no host" if not found else f"{hostfile}: a host has no slot"
        )
    return found


def include_others(found: Mapping[str, int]) -> bool:
    """Whether any host is not simply this machine."""
    return bool(set(found) - {*LOCAL, socket.gethostname()})


def world_info(found: Mapping[str, int]) -> str:
    """Slots by host as DeepSpeed's `launch` takes them."""
    world = {host: list(range(slots)) for host, slots in found.items()}
    return base64.urlsafe_b64encode(json.dumps(world).encode()).decode()


def command(
    words: list[str], found: Mapping[str, int], hostfile: str, port: int, environment: Mapping[str, str]
) -> list[str]:
    """What runs `words` (a module and its arguments) on all hosts; pdsh writes the number of the node for %n.

    The first host is the meeting point, so the others must know it by that name. Raises UserError where pdsh is
    missing, or the first host has a name that means another machine everywhere.
    """
    first = next(iter(found))
    if first in LOCAL and not all(host.startswith("127.") or host in LOCAL for host in found):
        raise UserError(f"engine.hostfile={hostfile}: name this machine as the others know it, not {first}")
    exports = [f"{name}={value}" for name, value in sorted(environment.items()) if exported(name)]
    launcher = [sys.executable, "-u", "-m", "deepspeed.launcher.launch", f"--world_info={world_info(found)}"]
    meeting = [f"--master_addr={first}", f"--master_port={port}"]
    # `exec`, so that what pdsh's ssh ends there is the launcher and not a shell around it.
    there = [_cd(), "exec env", *map(_quoted, [*exports, *launcher]), "--node_rank=%n"]
    there += map(_quoted, [*meeting, "--no_local_rank", "-q", "--module", *words])
    return [*_pdsh(found, hostfile), " ".join(there)]


def exported(name: str) -> bool:
    """Whether a variable goes along: what libraries and this package read, but no secret, as others see commands."""
    return name.startswith(EXPORTED) and not is_secret(name)


def check_ready(found: Mapping[str, int], hostfile: str, needed: list[Path]) -> None:
    """Ask every host for a sign of life and for `needed`, which must lie there as here. Raises UserError if not."""
    # A host that is not there would leave the workers of all others waiting for it at their first collective.
    paths = " ".join(_quoted(str(path)) for path in needed)
    probe = [*_pdsh(found, hostfile), f"{_cd()} ls -d {paths} > /dev/null"]
    done = subprocess.run(probe, env=with_ssh(os.environ), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"engine.hostfile={hostfile}: not every machine is ready:\n{done.stderr.strip()}")


def with_ssh(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of pdsh; ssh must never ask for a password."""
    more = f"-oBatchMode=yes {environment.get('PDSH_SSH_ARGS_APPEND', '')}".strip()
    return {**environment, "PDSH_RCMD_TYPE": "ssh", "PDSH_SSH_ARGS_APPEND": more}


def _pdsh(found: Mapping[str, int], hostfile: str) -> list[str]:
    if not shutil.which("pdsh"):
        raise UserError(f"engine.hostfile={hostfile}: several machines are reached by pdsh, which is not installed")
    return ["pdsh", "-S", "-f", str(len(found)), "-w", ",".join(found)]


def _cd() -> str:
    return f"cd {_quoted(str(Path.cwd()))} &&"


def _quoted(word: str) -> str:
    """For the shell over there, and for pdsh, which would fill in %h, %n and %u."""
    return shlex.quote(word).replace("%", "%%")


def send(path: Path, signum: int) -> None:
    """Tell the workers of all machines a signal."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{signum}\n")


def listen(path: Path) -> None:
    """From now on, what `send` writes comes as a signal to this process."""

    def poll() -> None:
        delivered = 0
        while True:
            lines: list[str] = []
            with suppress(OSError):  # there is none until the first signal, and again at the end
                lines = path.read_text(encoding="utf-8").split("\n")[
                    :-1
                ]  # what follows the last line break is still being written
            for line in lines[delivered:]:
                os.kill(os.getpid(), int(line))
            delivered = max(delivered, len(lines))
            time.sleep(POLL_SECONDS)

    threading.Thread(target=poll, name="signals", daemon=True).start()
