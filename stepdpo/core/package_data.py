"""What ships inside the package: the configuration folder and the miniature's files."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
PREFIX = "pkg://"


def packaged(path: str) -> str:
    """`pkg://a/b` as a real path inside the installed package; any other path or hub id as it is."""
    return str(ROOT / path.removeprefix(PREFIX)) if path.startswith(PREFIX) else path


def conf() -> Path:
    """The configuration folder: inside the wheel, or at the top of a source checkout."""
    inside = ROOT / "conf"
    return inside if inside.is_dir() else ROOT.parent / "conf"
