"""`stepdpo export ... push=owner/name` against a hub on loopback, by the hub's own client."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
from support import exports
from support.local_hub import local_hub
from typer.testing import CliRunner

from stepdpo.cli.main import app

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the hub's client and httpx
TOKEN = "hf_plantedplantedplanted01"


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # its storage is no part of this hub
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return exports.finished_run(tmp_path / "run", tiny_model, values=True)[0]


def test_the_folder_is_what_the_hub_has_and_the_token_is_nowhere(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with local_hub(TOKEN) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        done = CliRunner().invoke(app, ["export", str(run), "push=me/mine"])
    assert done.exit_code == 0, done.output
    assert f"pushed to {hub.url}/me/mine" in done.output
    assert hub.strange == []
    made = hub.repositories["me/mine"]
    assert made.get("private") is True or made.get("visibility") == "private"
    written = {
        p.relative_to(run / "export").as_posix(): p.read_bytes() for p in (run / "export").rglob("*") if p.is_file()
    }
    assert hub.files == written
    assert {"README.md", "model.safetensors", "value_head.safetensors", "stepdpo.json"} <= written.keys()
    assert set(hub.cards) == {written["README.md"].decode()}  # the client asks twice
    assert TOKEN not in done.output
    assert not [name for name, content in hub.files.items() if TOKEN.encode() in content]


def test_a_hub_that_refuses_costs_no_export(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with local_hub(TOKEN, refuses=True) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        done = CliRunner().invoke(app, ["export", str(run), "--push", "me/mine"])
    assert done.exit_code == 1
    assert f"{run / 'export'} is written, but push=me/mine failed: " in done.output
    assert TOKEN not in done.output
    assert "Traceback" not in done.output
    assert (run / "export" / "model.safetensors").is_file()
    assert hub.files == {}
