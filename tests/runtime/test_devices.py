"""Visible GPUs, as CUDA reads CUDA_VISIBLE_DEVICES: what comes after -1 is not seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepdpo.runtime.devices import cores, gpus


@pytest.mark.parametrize(
    ("there", "visible", "expected"),
    [
        (4, None, ("0", "1", "2", "3")),
        (4, "2, 0", ("2", "0")),
        (4, "GPU-8a1f,3", ("GPU-8a1f", "3")),
        (4, "1,-1,2", ("1",)),
        (4, "-1", ()),
        (4, "", ()),
        (0, "0,1", ()),
        (0, None, ()),
    ],
)
def test_visible_gpus(
    there: int, visible: str | None, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", lambda path, pattern: [Path(f"/dev/nvidia{i}") for i in range(there)])
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == expected


def test_there_is_a_core() -> None:
    assert cores() >= 1
