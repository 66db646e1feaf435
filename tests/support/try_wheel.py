"""Install the built wheel without the checkout and use it from an empty folder (run by `make wheel`)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main(dist: Path) -> int:
    (wheel,) = dist.resolve().glob("*.whl")
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", str(site), str(wheel)], check=True)
        environment = {**os.environ, "PYTHONPATH": str(site)}
        work = Path(folder) / "work"
        work.mkdir()
        where = subprocess.run(
            [sys.executable, "-c", "import stepdpo; print(stepdpo.__file__)"],
            env=environment, cwd=work, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        if not where.startswith(str(site)):
            print(f"the checkout was used, not the wheel: {where}")
            return 1
        words = ["train", "engine=local", "max_steps=1", "batch.pairs=4", "dataset.limit=40", "run=wheel"]
        subprocess.run([sys.executable, "-m", "stepdpo", *words], env=environment, cwd=work, check=True)
        if not (work / "runs" / "wheel" / "model" / "model.safetensors").is_file():
            print("the run left no model")
            return 1
    print(f"{wheel.name}: trains from another folder")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
