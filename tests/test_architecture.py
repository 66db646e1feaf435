"""The plan of the house, kept by reading the source: imports go down, each heavy library has one owner."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import stepdpo
from stepdpo.package import conf

ROOT = Path(stepdpo.__file__).parent
FLOORS = (
    "planting",
    # nouns and plain functions
    "stepdpo ahead errors logps optim package progress protocols records redact seen steps stopping trees",
    # parts that know nothing but nouns
    "batch bundles config decode files grade level lock nodes overrides stats store survey teach template tinymath",
    # what is made of them: losses, engines, data, tokens
    "algo caches checkpoints collate dataset engine grading report server storing tokenise track workers",
    # run folders, updates, tasks
    "display feed identity making runs task workshop",
    "crew judge material pairs",
    # models, jobs
    "jobs model",
    "sampler",
    "likelihood",
    "check",
    # passes over a model; what a verb's work is made of
    "afterwards construct evaluate references saving",
    "rounds scoring",
    "launch loop",
    # the doors
    "cli train",
    "__main__ worker",
)
"""From the ground up. A module imports only from floors below its own (or from its own package)."""
OWNERS = {
    "deepspeed": ("engine/",),
    "transformers": ("model/", "sampler/", "tinymath/tokenizer.py", "engine/zero.py"),  # zero: its DeepSpeed hook
    "datasets": ("dataset/",),
    "wandb": ("track.py",),
    "hydra": ("overrides.py", "launch.py"),
    "typer": ("cli.py",),
    "vllm": ("sampler/",),
    "openai": ("server/",),
    "peft": ("model/",),
    "ray": ("crew/ray.py",),
}
HEAVY = {"torch", "hydra", "omegaconf", "transformers", "datasets", "numpy", "deepspeed", "wandb", "scipy"}
"""What the command line must not wait for."""
VERBS = ("train", "construct", "evaluate", "report")
WITHOUT_TENSORS = (
    "records",
    "trees",
    "steps",
    "level",
    "template",
    "grade",
    "judge",
    "crew",
    "pairs",
    "workshop",
    "decode",
    "dataset",
    "task",
    "stats",
    "report",
    "runs",
    "config",
    "protocols",
    "optim",
)
"""Strings and integers live here; tensors do not."""


def name_of(path: Path) -> str:
    parts = ("stepdpo", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Everything that runs: also imports within functions, but not those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from statements(child)


def imports(module: str) -> set[str]:
    found: set[str] = set()
    for node in statements(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
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


def unit(module: str) -> str:
    """The file or the package directly under stepdpo/."""
    return module.split(".")[1] if "." in module else module


def test_every_module_has_one_floor() -> None:
    listed = [name for floor in FLOORS for name in floor.split()]
    assert len(listed) == len(set(listed))
    assert {unit(module) for module in MODULES} == set(listed)


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module: str) -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names.split()}
    for imported in IMPORTS[module]:
        if imported.split(".")[0] == "stepdpo" and unit(imported) != unit(module):
            assert floor[unit(imported)] < floor[unit(module)], f"{module} imports {imported}"


def test_no_circles_within_packages() -> None:
    """Among single files too, where floors do not look."""
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
    others = set(VERBS) - {verb}
    for module in MODULES:
        if unit(module) == verb:
            assert not {unit(i) for i in IMPORTS[module] if i.startswith("stepdpo.")} & others


def test_options_never_import_options() -> None:
    """What two options need lies a floor lower, or in a file that is no option."""
    for group in sorted(path for path in conf().iterdir() if path.is_dir()):
        targets = {yaml.safe_load(path.read_text()).get("_target_", "") for path in group.glob("*.yaml")}
        modules = {target.rpartition(".")[0] for target in targets} & MODULES.keys()
        for module in modules:
            assert not IMPORTS[module] & (modules - {module}), f"{module} imports another option of {group.name}"


@pytest.mark.parametrize("name", WITHOUT_TENSORS)
def test_strings_and_integers_stay_without_tensors(name: str) -> None:
    for module in MODULES:
        if unit(module) == name:
            assert "torch" not in {imported.split(".")[0] for imported in IMPORTS[module]}, module


def test_losses_see_records_of_tensors_and_nothing_else() -> None:
    for module in MODULES:
        if unit(module) == "algo" and module != "stepdpo.algo":
            plain = {i.split(".")[0] for i in IMPORTS[module]} - {"__future__", "dataclasses", "enum", "typing", "math"}
            assert plain <= {"torch", "stepdpo"}
            assert {i for i in IMPORTS[module] if i.startswith("stepdpo")} == {"stepdpo.batch"}


def test_every_file_says_what_it_is_and_has_a_name() -> None:
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree) or not tree.body, f"{module} has no docstring"
        assert path.stem not in ("utils", "helpers", "common", "base", "misc"), module


@pytest.mark.parametrize("module", ["stepdpo", "stepdpo.cli"])
def test_the_door_opens_without_anything_heavy(module: str) -> None:
    """`--help` answers at once."""
    code = f"import sys, {module}; print([m for m in sys.modules if m.split('.')[0] in {tuple(HEAVY)!r}][:3])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert answer.stdout.strip() == "[]"
