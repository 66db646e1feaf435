"""The state of one process is opened as numbers alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stepdpo.core.errors import UserError
from stepdpo.training.engine.local import STATE, LocalEngine


class Planted:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def test_a_state_that_holds_code_is_refused_without_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "optimizer": Planted()}, tmp_path / STATE)
    engine: Any = SimpleNamespace(device=torch.device("cpu"))
    with pytest.raises(UserError, match=r"holds more than tensors, or is damaged; it is not opened") as refused:
        LocalEngine.load_state(engine, tmp_path)
    assert "weights_only" not in str(refused.value)
    assert not (tmp_path / "ran").exists()
