"""docs/extending.md does what it says: its files in a fresh folder, its commands through the real command line."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support.commands import environment, stepdpo

import stepdpo as package

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
FILE = re.compile(r"^\*\*(mine/\S+)\*\*\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A file's name in bold right above the block of its contents: the page's convention."""
COMMANDS = re.compile(r"^```\n((?:stepdpo .*\n)+)```$", re.MULTILINE)
ROW = re.compile(r"^\| \[[^]]+\]\(#([\w-]+)\) \| ([^|]+) \| ([^|]+) \| `([^`]+)` \|$", re.MULTILINE)
KINDS = {".py": "Python", ".yaml": "YAML", ".jsonl": "JSON Lines"}
TEST_LINES = 10
LEFT = {
    "a-loss": ("apo/metrics.jsonl", '"step": 2'),
    "a-loss-on-steps": ("fading/metrics.jsonl", '"step": 2'),
    "a-template": ("qa/model/stepdpo.json", '"name": "qa"'),
    "a-task": ("sums/eval/sums/summary.json", '"n": 2'),
    "a-data-set-whose-columns-map": ("ranked/metrics.jsonl", '"step": 1'),
    "a-data-set-that-you-read-yourself": ("step_labels/metrics.jsonl", '"step": 1'),
    "a-decoder": ("shortest/eval/tinymath-shortest/summary.json", '"decode": "shortest"'),
    "a-judge": ("arithmetic/preferences.jsonl", '"rejected"'),
    "a-way-of-making-pairs": ("parting/preferences.jsonl", '"rejected"'),
}
"""Of each section: a file below `runs` that its commands leave, and something that it holds."""


@dataclass(frozen=True)
class Section:
    """One part: its files by name, its commands in order."""

    files: dict[str, str]
    commands: tuple[str, ...]

    @property
    def tests(self) -> dict[str, str]:
        return {name: text for name, text in self.files.items() if Path(name).name.startswith("test_")}


@dataclass(frozen=True)
class Stated:
    """What the table at the top says of a part."""

    files: dict[str, int]
    offers: tuple[str, ...]
    stands_in: str


@cache
def sections() -> dict[str, Section]:
    """The sections with files, by their anchors."""
    found = {}
    for text in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        files = dict(FILE.findall(text))
        commands = [line for block in COMMANDS.findall(text) for line in block.splitlines()]
        if files:
            anchor = text.partition("\n")[0].lower().replace(",", "").replace(" ", "-")
            found[anchor] = Section(files, tuple(commands))
    return found


@cache
def table() -> dict[str, Stated]:
    rows = {}
    for anchor, files, offers, place in ROW.findall(PAGE.read_text()):
        counts = {kind: int(number) for number, kind in (entry.split(" ", 1) for entry in files.split(", "))}
        rows[anchor] = Stated(counts, tuple(re.findall(r"`(\w+)`", offers)), place)
    return rows


ANCHORS = tuple(sections())
QUICK = ("a-way-of-making-pairs",)
"""The commands of the others are left to the slow tests."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh folder with all files of the page, and nothing else."""
    folder = tmp_path_factory.mktemp("extending")
    for section in sections().values():
        for name, text in section.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    return folder


def test_the_page_has_all_parts() -> None:
    assert set(table()) == set(sections())
    assert len(table()) == 9


@pytest.mark.parametrize("anchor", ANCHORS)
def test_the_stated_numbers_of_files(anchor: str) -> None:
    section = sections()[anchor]
    counted = Counter(KINDS[Path(name).suffix] for name in section.files if name not in section.tests)
    assert counted == table()[anchor].files
    assert len(section.tests) == 1
    assert section.commands


@pytest.mark.parametrize("anchor", ANCHORS)
def test_tests_have_ten_lines(anchor: str) -> None:
    """Imports and blank lines aside."""
    (text,) = sections()[anchor].tests.values()
    imports = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert len([line for line in text.splitlines() if line.strip()]) - len(imports) <= TEST_LINES


@pytest.mark.parametrize("anchor", ANCHORS)
def test_seams_are_where_the_page_says(anchor: str) -> None:
    """The class, or the function and the record it returns, with the members that are named."""
    stated = table()[anchor]
    module = importlib.import_module(stated.stands_in.removesuffix(".py").replace("/", "."))
    (kind,) = [getattr(module, name) for name in stated.offers if hasattr(module, name)]
    members = set(dir(kind)) | set(kind.__annotations__)
    assert set(stated.offers) - {kind.__name__} <= members


def test_needs_are_all_told() -> None:
    """What a loss and a way of making pairs may need is what somebody looks for."""
    text = PAGE.read_text()
    root = Path(package.__file__).parent

    def asked(*rooms: str) -> set[str]:
        sources = [path.read_text() for room in rooms for path in (root / room).rglob("*.py")]
        return {word for source in sources for word in re.findall(r'"(\w+)" (?:not )?in [\w.]*needs\b', source)}

    told = re.findall(r"^\| `(\w+)` \| `\w+`", text, re.MULTILINE)
    assert set(told) == asked("training", "tokens")
    methods = text[text.index("## A way of making pairs") :]
    assert all(f"`{word}`" in methods for word in asked("pairs"))


def test_the_tests_of_the_page(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "mine", "-q", "-p", "no:cacheprovider"],
        cwd=project, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)


@pytest.mark.parametrize(
    "anchor", [pytest.param(anchor, marks=[] if anchor in QUICK else [pytest.mark.slow]) for anchor in ANCHORS]
)
def test_the_commands_of_the_page(anchor: str, project: Path) -> None:
    """Each ends well, and the part of the page was at work."""
    section = sections()[anchor]
    for command in section.commands:
        done = stepdpo(*command.split()[1:], cwd=project)
        assert done.code == 0, f"{command}\n{done.said}"
    file, text = LEFT[anchor]
    assert text in (project / "runs" / file).read_text()
    (option,) = [Path(name) for name in section.files if name.endswith(".yaml")]
    part = OmegaConf.load(project / option)
    for path in (project / "runs" / Path(file).parts[0]).rglob("config.yaml"):
        used = OmegaConf.load(path)[option.parent.name]
        if all(used[key] == part[key] for key in ("_target_", "name", "path") if key in part):
            return
    raise AssertionError(f"no run was configured by {option}")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_pairs_are_trained_on(project: Path) -> None:
    """What the page says in passing of the pairs it makes."""
    section = sections()["a-way-of-making-pairs"]
    for command in (*section.commands, "stepdpo train dataset=jsonl dataset.path=runs/parting/preferences.jsonl"):
        done = stepdpo(*command.split()[1:], "force=true", cwd=project)
        assert done.code == 0, done.said


@pytest.mark.slow
@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_workers_of_deepspeed_find_the_part(processes: int, project: Path) -> None:
    (command,) = sections()["a-loss"].commands
    done = stepdpo(*command.split()[1:], "engine=zero", f"engine.processes={processes}", "force=true", cwd=project)
    assert done.code == 0, done.said


@pytest.mark.slow
@pytest.mark.exhaustive
def test_where_python_files_are_looked_for(project: Path, tmp_path: Path) -> None:
    """Beside the folder of options, wherever the command is started; not in the current folder or on PYTHONPATH."""
    (command,) = sections()["a-decoder"].commands
    words = [str(project / word) if word == "mine/conf" else word for word in command.split()[1:]]
    done = stepdpo(*words, cwd=tmp_path)
    assert done.code == 0, done.said
    options = tmp_path / "other" / "conf"
    shutil.copytree(project / "mine" / "conf", options)
    words = [str(options) if word == str(project / "mine/conf") else word for word in words]
    path = f"{environment()['PYTHONPATH']}:{project}"
    done = stepdpo(*words, "run=elsewhere", cwd=project, PYTHONPATH=path)
    assert done.code == 2, done.said
    assert f"which lies outside {tmp_path / 'other'}" in done.err


@pytest.mark.slow
@pytest.mark.exhaustive
def test_an_installed_script_finds_the_part_as_well(project: Path, tmp_path: Path) -> None:
    """It has its own folder on its path in place of the one it is started in; `force` builds the part there."""
    (command,) = sections()["a-loss"].commands
    (tmp_path / "mine").symlink_to(project / "mine")
    assert stepdpo(*command.split()[1:], cwd=tmp_path).code == 0
    script = "import sys; sys.path.pop(0); from stepdpo.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, *command.split()[1:], "force=true"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
