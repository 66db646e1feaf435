"""What ships inside the package: the configuration folder, the miniature's files, and our own sources."""

from __future__ import annotations

from collections.abc import Iterable
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


def sources(patterns: Iterable[str], root: Path = ROOT) -> list[Path]:
    """The files of the package that the patterns name, for a hash of the code that a cache entry depends on.

    RuntimeError names a pattern without a file: a file that was moved would else leave the hash in silence, and
    entries made by other code would be taken for this one's.
    """
    files: set[Path] = set()
    for pattern in patterns:
        found = {path for path in root.glob(pattern) if path.is_file()}
        if not found:
            raise RuntimeError(
                f"no file of the package is named {pattern!r}, so the code that it stands for is not known"
            )
        files |= found
    return sorted(files)
