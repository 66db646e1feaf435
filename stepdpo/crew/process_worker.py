"""`python -m stepdpo.crew.process_worker FD PARENT`: a worker of crew=processes, spoken to over a socket."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import traceback
import warnings
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

from stepdpo.crew.dispatch import Arrived, GroupDone, Ready
from stepdpo.crew.protocols import TaskResult, Worker, WorkerSpec
from stepdpo.runtime.parent import end_with
from stepdpo.runtime.terminal import guard_output


def main(connection: Connection) -> None:
    """Work on the groups that are sent, until no more can come; what is raised is sent in place of an event."""
    with ExitStack() as stack:
        try:
            connection.send(Ready())
            sys.path[:] = connection.recv()  # parts of a user's own lie beside the folder of their options
            spec: WorkerSpec[Any, TaskResult] = pickle.loads(connection.recv_bytes())
            worker: Worker[Any, TaskResult] | None = None
            while True:
                group = connection.recv()
                if worker is None:
                    worker = stack.enter_context(spec.open(f"{socket.gethostname()}-{os.getpid()}"))
                for result in worker.work(group):
                    connection.send(Arrived(result))
                connection.send(GroupDone(worker.provenance))
        except (EOFError, ConnectionError):
            return  # the other side is done, or dead
        except Exception as error:
            connection.send((_sendable(error), traceback.format_exc()))


def _sendable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be pickled."""
    try:
        again = pickle.loads(pickle.dumps(error))
    except Exception:  # what a class of a stranger's may raise is anything
        again = None
    return error if type(again) is type(error) else RuntimeError(f"{type(error).__name__}: {error}")


def _stop(signum: int, _: object) -> None:
    signal.signal(signum, signal.SIG_IGN)  # once is enough: what is being closed must be closed
    sys.exit(128 + signum)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all, and the parent ends its workers
    signal.signal(signal.SIGTERM, _stop)
    end_with(int(sys.argv[2]))()
    guard_output()
    warnings.filterwarnings("ignore", module="transformers")
    main(Connection(int(sys.argv[1])))
