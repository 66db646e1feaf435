"""The plan of the house, kept by reading the source: imports go down, each heavy library has one owner."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import stepdpo
from stepdpo.core.package_data import conf

ROOT = Path(stepdpo.__file__).parent
ROOMS = (
    "core",
    "runtime",
    "crew",
    "data",
    "tinymath",
    "tokens",
    "algo",
    "models",
    "generation",
    "evaluation",
    "pairs",
    "report",
    "training",
    "cli",
)
"""From the ground up. A file imports from its own room and from the rooms before it in this list."""
OWNERS = {
    "deepspeed": ("training/engine/",),
    "transformers": ("models/", "generation/", "tinymath/tokenizer.py", "training/engine/zero_engine.py"),  # its hook
    "datasets": ("data/readers.py",),
    "wandb": ("runtime/tracking.py",),
    "hydra": ("cli/overrides.py", "cli/launch.py"),
    "typer": ("cli/main.py",),
    "vllm": ("generation/vllm.py",),
    "openai": ("generation/client/",),
    "peft": ("models/adapter_layers.py",),
    "bitsandbytes": ("models/quantise.py",),
    "huggingface_hub": ("report/model_card.py", "cli/hub.py"),
    "ray": ("crew/ray.py",),
}
HEAVY = {"torch", "hydra", "omegaconf", "transformers", "datasets", "numpy", "deepspeed", "wandb", "scipy"}
"""What the command line must not wait for."""
VERBS = ("training.trainer", "pairs.build", "evaluation.evaluate", "report.make")
STRINGS = ("core", "crew", "data", "evaluation", "pairs", "report")
"""Rooms that never see a tensor."""


def name_of(path: Path) -> str:
    parts = ("stepdpo", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(module: str) -> set[str]:
    """All of a file: those within functions too, and those for type checkers alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written from the top"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {
                word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)
            }
    return found


IMPORTS = {module: imports(module) for module in MODULES}


def room(module: str) -> str:
    """The package directly under stepdpo/; the door (`python -m stepdpo`) belongs to the command line."""
    parts = module.split(".")
    return "cli" if parts[1:] == ["__main__"] else parts[1] if len(parts) > 1 else ""


def ours(module: str) -> set[str]:
    return {imported for imported in IMPORTS[module] if imported.split(".")[0] == "stepdpo"}


def test_fourteen_rooms_and_a_door() -> None:
    there = {path.name for path in ROOT.iterdir()} - {"__pycache__", "conf"}
    assert there == {*ROOMS, "__init__.py", "__main__.py", "py.typed"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module: str) -> None:
    floor = {name: number for number, name in enumerate(("", *ROOMS))}
    for imported in ours(module):
        assert floor[room(imported)] <= floor[room(module)], f"{module} imports {imported}"


def test_no_circles_of_files() -> None:
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for imported in IMPORTS[module] & MODULES.keys() - {module}:
                visit(imported, (*trail, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("library", OWNERS)
def test_one_owner_for_each_heavy_library(library: str) -> None:
    for module, path in MODULES.items():
        if any(imported.split(".")[0] == library for imported in IMPORTS[module]):
            place = path.relative_to(ROOT).as_posix()
            assert place.startswith(OWNERS[library]), f"{place} imports {library}"


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_meet_only_on_disc(verb: str) -> None:
    others = {f"stepdpo.{other}" for other in VERBS} - {f"stepdpo.{verb}"}
    assert not IMPORTS[f"stepdpo.{verb}"] & others


def test_options_never_import_options() -> None:
    """What two options need lies a floor lower, or in a file that is no option."""
    for group in sorted(path for path in conf().iterdir() if path.is_dir()):
        targets = {yaml.safe_load(path.read_text()).get("_target_", "") for path in group.glob("*.yaml")}
        modules = {target.rpartition(".")[0] for target in targets} & MODULES.keys()
        for module in modules:
            assert not IMPORTS[module] & (modules - {module}), f"{module} imports another option of {group.name}"


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) in STRINGS])
def test_rooms_of_strings_never_see_a_tensor(module: str) -> None:
    assert "torch" not in {imported.split(".")[0] for imported in IMPORTS[module]}


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) == "algo"])
def test_losses_see_records_of_tensors_and_nothing_else(module: str) -> None:
    plain = {i.split(".")[0] for i in IMPORTS[module]} - {"__future__", "dataclasses", "enum", "typing", "math"}
    assert plain <= {"torch", "stepdpo"}
    assert ours(module) <= {"stepdpo.tokens.pair_scores", "stepdpo.tokens.step_scores", "stepdpo.core.ranges"}


def test_every_file_says_what_it_is_and_has_a_name() -> None:
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree) or not tree.body, f"{module} has no docstring"
        assert path.stem not in ("utils", "helpers", "common", "base", "misc"), module


@pytest.mark.parametrize("module", ["stepdpo", "stepdpo.cli.main"])
def test_the_door_opens_without_anything_heavy(module: str) -> None:
    """`--help` answers at once."""
    code = f"import sys, {module}; print([m for m in sys.modules if m.split('.')[0] in {tuple(HEAVY)!r}][:3])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert answer.stdout.strip() == "[]"


PAGE = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """What stands below a line in bold, up to the next one or the next heading."""
    return re.split(r"^(?:\*\*|## )", PAGE.partition(f"**{title}**")[2], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("name", ROOMS)
def test_the_page_has_one_line_for_every_file(name: str) -> None:
    listed = re.findall(r"^\| `([\w/]+)` \|", section(name), re.MULTILINE)
    files = [p.relative_to(ROOT / name).with_suffix("").as_posix() for p in (ROOT / name).rglob("*.py")]
    assert sorted(listed) == sorted(file for file in files if not file.endswith("__init__"))


@pytest.mark.parametrize("verb", ["train", "pairs"])
def test_few_words_are_our_own(verb: str) -> None:
    """Who wants to change a verb learns at most fifteen words; a sixteenth is a reason to look for the field's word."""
    words = re.findall(r"^\| (?!word |---)[^|]+ \|", section(f"To change `{verb}`"), re.MULTILINE)
    assert 5 <= len(words) <= 15


@pytest.mark.parametrize("module", MODULES)
def test_text_is_utf_8_whatever_the_locale(module: str) -> None:
    """Every text file is opened with its encoding: without one, Python asks the environment."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or "encoding" in {given.arg for given in node.keywords}:
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        words = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        as_text = name == "open" and any(set(word) <= set("rwax+t") for word in words)
        of_a_path = name in ("read_text", "write_text") and isinstance(node.func, ast.Attribute)
        unsaid = as_text or of_a_path
        assert not unsaid, f"{module}:{node.lineno}: {ast.unparse(node)}"
