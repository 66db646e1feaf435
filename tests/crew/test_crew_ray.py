"""A local Ray with workers that load nothing: the same dispatcher as that of processes, over actors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import environment

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]
PROGRAM = """
import json, sys
from pathlib import Path
from stepdpo.core.errors import UserError
from stepdpo.crew.ray import RayExecutor
from support.crew_parts import Doing, DoingSpec
folder = Path(sys.argv[1])
does = ["meet", "", "meet", "die once", "", "", "", ""]
tasks = [Doing(f"t{i}", do, folder) for i, do in enumerate(does)]
with RayExecutor(workers=2, ahead=1).open(DoingSpec()) as crew:
    results = [[did.problem, did.threads] for did in crew.finish([tasks[i : i + 2] for i in range(0, 8, 2)])]
    try:
        list(crew.finish([[Doing("x", "mend")]]))
    except UserError as error:
        raised = [str(error), error.__cause__ is None]
print(json.dumps([results, crew.provenance, raised]))
"""


def test_results_once_a_death_and_an_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "2 workers on Ray, 1 cores and 0 GPUs each"
    assert "warning: a worker died over the problems from t2 on; another one goes on. Ray says: " in said[1]
    results, provenance, raised = json.loads(said[-1])
    assert sorted(name for name, _ in results) == [f"t{i}" for i in range(8)]
    assert {threads for _, threads in results} == {"1"}
    assert provenance == {"made": "by hand"}
    assert raised == ["mend it", True]
