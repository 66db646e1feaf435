"""`stepdpo chat --web` as a user starts it, and models to ask."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import torch

from stepdpo.core.package_data import packaged
from stepdpo.models import value_head
from stepdpo.tinymath.problems import problems
from stepdpo.tokens.step_scores import Squash
from support.commands import environment, start

QUESTIONS = [problem.question for problem in problems("test", 3)]


def valued(folder: Path) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """The shipped miniature with a value head drawn at random, whose weights and bias come with it."""
    shutil.copytree(packaged("pkg://tinymath/model"), folder)
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    weight, bias = 0.2 * torch.randn(1, width, generator=torch.Generator().manual_seed(5)), torch.tensor([0.1])
    value_head.write(folder, {"weight": weight, "bias": bias}, Squash.tanh)
    return folder, weight[0], bias


class Server:
    """A running one."""

    def __init__(self, url: str) -> None:
        self.url = url
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/#([\w-]+)", url)
        assert found, url
        self.port, self.token = int(found[1]), found[2]

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body); nothing is sent that is not given, but a Host where none is, and the length."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            given = {"Host": self.host, **(headers or {})}
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                if value:
                    connection.putheader(name, value)
            if body is not None and "Content-Length" not in given:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()

    @property
    def ours(self) -> dict[str, str]:
        """The headers that our page sends."""
        return {
            "Authorization": f"Bearer {self.token}", "Content-Type": "application/json",
            "Origin": f"http://{self.host}", "Sec-Fetch-Site": "same-origin",
        }  # fmt: skip

    def ask(self, question: str) -> list[dict[str, Any]]:
        """The events."""
        status, _, body = self.request("POST", "/ask", json.dumps({"question": question}).encode(), self.ours)
        assert status == 200, body
        return [json.loads(line) for line in body.splitlines() if line.strip()]


@contextmanager
def serving(*words: str | Path, cwd: Path) -> Iterator[Server]:
    """A server that is ended by Ctrl-C, and must then say that all is well."""
    process = start("chat", *words, "--web", cwd=cwd)
    said = ""
    try:
        assert process.stdout
        for line in process.stdout:
            said += line
            if line.startswith("open "):
                break
        else:
            raise AssertionError(f"it did not start: {said}")
        yield Server(line.split()[1])
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said + rest
        assert "Traceback" not in rest
    finally:
        process.kill()
        process.wait()


def piped(*words: str | Path, lines: str | bytes, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """`echo LINES | stepdpo chat WORDS`."""
    given = lines.encode() if isinstance(lines, str) else lines
    command = [sys.executable, "-m", "stepdpo", "chat", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment(), input=given, capture_output=True, check=False)
