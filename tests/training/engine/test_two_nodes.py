"""Two machines that are this one twice: 127.0.0.1 and 127.0.0.2, reached by pdsh over an sshd of the test's own."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.commands import metrics, signalled, stepdpo, until

HOSTS = ("127.0.0.1", "127.0.0.2")
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
PRIVILEGED = Path("/run/sshd")
"""An sshd of the superuser's insists on this folder, which its service makes."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SSHD and shutil.which("pdsh") and shutil.which("ssh-keygen")), reason="no sshd or pdsh"),
    pytest.mark.skipif(os.getuid() == 0 and not PRIVILEGED.is_dir(), reason=f"sshd needs {PRIVILEGED}"),
]


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment with which pdsh gets in: keys, settings and port are the test's, ~/.ssh and /etc are left alone."""
    folder = tmp_path_factory.mktemp("ssh")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    listening = "".join(f"ListenAddress {host}\n" for host in HOSTS)
    (folder / "sshd_config").write_text(
        f"Port {port}\n{listening}HostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nPidFile none\n"
        f"UsePAM no\nStrictModes no\nPasswordAuthentication no\nAllowUsers {getpass.getuser()}\n"
    )
    (folder / "ssh_config").write_text(
        f"Host *\n Port {port}\n IdentityFile {folder}/user\n IdentitiesOnly yes\n LogLevel ERROR\n"
        f" UserKnownHostsFile {folder}/known\n StrictHostKeyChecking accept-new\n"
    )
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([str(SSHD), "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        until(lambda: server.poll() is not None or all(answers(host, port) for host in HOSTS))
        assert server.poll() is None, (folder / "log").read_text()
        yield {"PDSH_SSH_ARGS_APPEND": f"-F {folder}/ssh_config"}
    finally:
        server.terminate()
        server.wait()


def answers(host: str, port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex((host, port)) == 0


@pytest.fixture(scope="module")
def words(pairs_words: list[str], tiny_model: Path) -> list[str]:
    return ["train", *pairs_words, f"model={tiny_model}", "engine.dtype=float32"]


def hostfile(folder: Path, *hosts: str) -> str:
    (folder / "hosts").write_text("".join(f"{host} slots=1\n" for host in hosts))
    return "engine.hostfile=hosts"


def workers_of(run: Path) -> list[psutil.Process]:
    """Processes anywhere on this machine that work in a run folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if "stepdpo.cli.worker" in process.cmdline() and process.cwd() == str(run.parents[1]):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_two_nodes_do_what_one_process_does(words: list[str], ssh: dict[str, str], tmp_path: Path) -> None:
    done = stepdpo(*words, "run=one", "engine=local", cwd=tmp_path)
    assert done.code == 0, done.said
    both = (*words, "run=two", "engine.stage=2", hostfile(tmp_path, *HOSTS))
    done = stepdpo(*both, cwd=tmp_path, **ssh)
    assert done.code == 0, done.said
    one, two = tmp_path / "runs" / "one", tmp_path / "runs" / "two"
    trainer = json.loads((two / "checkpoints" / "step-000004" / "trainer.json").read_text())
    assert trainer["world"] == 2
    assert sorted(path.name for path in two.iterdir()) == sorted(path.name for path in one.iterdir())
    assert len(metrics(one)) > 4
    for ours, theirs in zip(metrics(one), metrics(two), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5, abs=3e-5)
    assert not workers_of(two)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.exhaustive
def test_a_signal_stops_both_and_resuming_goes_on(
    words: list[str], ssh: dict[str, str], tmp_path: Path, signum: int, code: int
) -> None:
    run = tmp_path / "runs" / "x"
    long = (*words, "run=x", "epochs=900", "max_steps=60", "save_every=0", hostfile(tmp_path, *HOSTS))
    done = signalled(signum, *long, folder=run, after=2, cwd=tmp_path, **ssh)
    assert done.code == code, done.out
    assert "a checkpoint was saved, resume=true goes on" in done.out
    until(lambda: not workers_of(run))
    last = metrics(run)[-1]["step"]
    assert (run / "checkpoints" / f"step-{last:06d}" / "MANIFEST.json").is_file()
    assert not (run / ".signals").exists()
    if signum == signal.SIGTERM:
        done = stepdpo("train", "run=x", "resume=true", cwd=tmp_path, **ssh)
        assert done.code == 0, done.said
        assert f"resuming after update {last} " in done.out
        assert metrics(run)[-1]["step"] == 60


@pytest.mark.exhaustive
def test_what_the_user_must_mend(words: list[str], ssh: dict[str, str], tmp_path: Path) -> None:
    """A host that is not there, and a mistake that the workers find."""
    done = stepdpo(*words, "run=x", hostfile(tmp_path, *HOSTS, "127.0.0.3"), cwd=tmp_path, **ssh)
    assert done.code == 2, done.said
    assert "not every machine is ready" in done.err
    assert "127.0.0.3" in done.err
    assert not (tmp_path / "runs" / "x").exists()
    done = stepdpo(*words, "run=x", "dataset.path=nowhere.jsonl", hostfile(tmp_path, *HOSTS), cwd=tmp_path, **ssh)
    assert done.code == 2, done.said
    assert "nowhere.jsonl" in done.err
    assert not (tmp_path / "runs" / "x").exists()
