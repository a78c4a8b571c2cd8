"""The package is a house: imports point down, modules are small, and CONTRIBUTING.md shows all of them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from helpers.repository import ROOT

PACKAGE = ROOT / "workflow" / "prosparse"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: From the top down; parts of one layer do not import each other.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("commands", "gpu_check"),
    ("plan",),
    ("paper.publish",),
    ("paper.html",),
    ("paper.compare",),
    ("paper.page", "paper.summary"),
    ("paper.opening",),
    ("paper.acceleration", "paper.calibration", "paper.release", "paper.sections"),
    ("paper.claims", "paper.figures", "paper.tables"),
    ("paper.registry",),
    ("paper.results",),
    ("paper.markdown", "paper.statistics"),
    ("measure",),
    ("inference",),
    ("training",),
    ("data",),
    ("models",),
    ("method", "operators"),
    ("experiment",),
    ("published",),
    ("system",),
)

#: Modules of more than 300 lines, with the reason.
LONG: dict[str, str] = {}

_KERNEL = "a Triton kernel takes pointers, sizes and strides one by one"
_OPERATOR = "an operator takes its tensors and numbers one by one"
#: Functions of more than six parameters, with the reason.
MANY_PARAMETERS: dict[str, str] = {
    "operators/gathered.py:dense_ffn": _OPERATOR,
    "operators/gathered.py:sparse_ffn": _OPERATOR,
    "operators/gpu.py:_up": "the kernel's",
    "operators/gpu.py:plan_ffn": "the operator's, and the number of multiprocessors",
    "operators/gpu_kernels.py:compact_kernel": _KERNEL,
    "operators/gpu_kernels.py:down_kernel": _KERNEL,
    "operators/gpu_kernels.py:up_kernel": _KERNEL,
    "operators/interface.py:_": _OPERATOR,
    "training/loss.py:forward": "an autograd function takes its tensors one by one",
    "data/tokens.py:tokenize": "the step's options",
}


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(path: Path) -> str:
    """Without the package's own name: ``paper.tables.table5``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """The package's modules that a module imports anywhere, in functions and for type checkers too."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}: imports are absolute"
            names = [f"{node.module}.{each.name}" for each in node.names]
        else:
            continue
        yield from (name.removeprefix("prosparse.") for name in names if name.startswith("prosparse."))


def layer(module: str) -> tuple[int, str]:
    """The height of a module's layer, counted from the top, and the part of the layer that the module is in."""
    for height, parts in enumerate(LAYERS):
        for part in parts:
            if f"{module}.".startswith(f"{part}."):
                return height, part
    raise AssertionError(f"{module} is in no layer")


def test_imports_point_down():
    up = []
    for path in MODULES:
        if dotted(path) in ("__init__", "paper.__init__", "paper"):
            continue
        height, part = layer(dotted(path))
        for name in imported(path):
            its_height, its_part = layer(name)
            if its_part != part and its_height <= height:
                up.append(f"{relative(path)} imports {name}")
    assert not up


def test_what_plans_and_what_writes_tables_needs_no_torch():
    """Every such module, imported in a fresh interpreter."""
    light = ("plan", "paper", "experiment", "published")
    names = [f"prosparse.{dotted(path)}" for path in MODULES if dotted(path).partition(".")[0] in light]
    program = f"import sys; [__import__(name) for name in {names}]; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers"} & set(said.split())


def test_no_module_is_longer_than_300_lines():
    long = {relative(path) for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > 300}
    assert long == set(LONG)


def test_no_function_has_more_than_six_parameters():
    """But a command's handler, whose parameters are its options."""
    many = set()
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if len([each for each in taken if each.arg not in ("self", "cls")]) > 6:
                    many.add(f"{relative(path)}:{node.name}")
    assert {each for each in many if not each.startswith("cli/")} == set(MANY_PARAMETERS)


def test_contributing_shows_every_module_with_the_first_line_of_its_docstring():
    shown = re.search(r"```text\n(prosparse/ .*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)
    right = tree()
    assert max(map(len, right.splitlines())) <= 120, "shorten the first line of a docstring"
    assert shown[1] == right, f"the tree in CONTRIBUTING.md is not the package's, which is\n\n{right}"


def tree() -> str:
    """The package from the top down, each folder's modules before its subfolders."""
    lines = [*_lines(PACKAGE)]
    width = max(len(name) for name, _ in lines) + 2
    return "".join(f"{name:{width}}{purpose}\n" for name, purpose in lines)


def _lines(folder: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
    def by_number(path: Path) -> list[str | int]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)]

    def from_above(path: Path) -> tuple[int, str]:
        order = [part.partition(".")[0] for parts in LAYERS for part in parts]
        return (order.index(path.name) if folder == PACKAGE else 0), path.name

    yield f"{'  ' * depth}{folder.name}/", _purpose(folder / "__init__.py")
    for path in sorted(folder.glob("*.py"), key=by_number):
        if path.name != "__init__.py":
            yield f"{'  ' * (depth + 1)}{path.name}", _purpose(path)
    for path in sorted((path.parent for path in folder.glob("*/__init__.py")), key=from_above):
        yield from _lines(path, depth + 1)


def _purpose(path: Path) -> str:
    documented = ast.get_docstring(parsed(path))
    assert documented, f"{relative(path)} has no docstring"
    return documented.splitlines()[0].removesuffix(".")
