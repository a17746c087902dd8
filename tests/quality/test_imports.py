"""Imports run one way: decoders <- harness <- fuzzers; tools and tests stand above; no circles."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "decoders": {"decoders"},
    "harness": {"decoders", "harness"},
    "fuzzers": {"decoders", "harness", "fuzzers"},
    "tools": {"decoders", "harness", "fuzzers", "tools"},
    "tests": {"decoders", "harness", "fuzzers", "tools", "tests"},
}
NAMED = {("harness.cli", "fuzzers"), ("harness.kept", "fuzzers")}
"""Against the arrows, by name only: modules of verbs and of inputs, loaded when asked for."""


def module_name(path: Path, root: Path) -> str:
    """Name the module that a file is: harness/trace/__init__.py is harness.trace."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def load_modules(root: Path) -> dict[str, Path]:
    """Find every module of the five packages, by name."""
    paths = (path for package in MAY_IMPORT for path in (root / package).rglob("*.py"))
    return {module_name(path, root): path for path in paths}


def imported(path: Path, name: str, *, everywhere: bool) -> Iterator[tuple[str, int]]:
    """Yield what a module imports, with the line; only while it is loaded unless everywhere.

    Imports for the type checker alone are none: nothing is loaded.
    """

    def visit(nodes: list[ast.stmt]) -> Iterator[tuple[str, int]]:
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    depth = node.level - (path.name == "__init__.py")
                    package = name.split(".")[: -depth or None]
                    base = ".".join([*package, *([node.module] if node.module else [])])
                yield base, node.lineno
                # `from package import module` loads the module too.
                yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                if everywhere:
                    yield from visit(node.body)
                yield from visit(node.orelse)
            elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for field in ("body", "orelse", "finalbody"):
                    yield from visit(getattr(node, field, []))
                for part in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
                    yield from visit(part.body)

    yield from visit(ast.parse(path.read_bytes()).body)


def named(path: Path, modules: Collection[str]) -> Iterator[tuple[str, int]]:
    """Yield the modules inside packages that text of a file is the name of, with the line.

    Tables of verbs and targets say so which module is loaded when it is asked for.
    """
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if "." in node.value and node.value in modules:
                yield node.value, node.lineno


def reverse_arrows(root: Path) -> list[str]:
    """List the imports, anywhere in a file, and the names that run against the arrows."""
    modules = load_modules(root)
    found = []
    for name, path in modules.items():
        own = name.split(".")[0]
        targets = list(imported(path, name, everywhere=True))
        for target, line in named(path, modules):
            if (name, target.split(".")[0]) not in NAMED:
                targets.append((target, line))
        for target, line in targets:
            if (top := target.split(".")[0]) in MAY_IMPORT and top not in MAY_IMPORT[own]:
                found.append(f"{path.relative_to(root)}:{line}: {own} may not import {target}")
    return found


def exceptions_in_use(root: Path) -> set[tuple[str, str]]:
    """Say which of the names that are let through are there."""
    modules = load_modules(root)
    used = {
        (name, target.split(".")[0])
        for name, path in modules.items()
        for target, _ in named(path, modules)
    }
    return NAMED & used


def circle(root: Path) -> list[str]:
    """Give a circle of imports at module level, or nothing.

    A package that re-exports its parts is not in a circle with them for `from package import
    part`; it is when a part takes a name from the package itself.
    """
    modules = load_modules(root)
    graph = {}
    for name, path in modules.items():
        targets = [target for target, _ in imported(path, name, everywhere=False)]
        # `from a import b` yields a and a.b; where a.b is a module, a is only passed through.
        through = {t.rpartition(".")[0] for t in targets if t in modules}
        graph[name] = {t for t in targets if t in modules and t != name} - through
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_reverse_arrow() -> None:
    assert reverse_arrows(ROOT) == []


def test_no_exception_is_left_over() -> None:
    assert exceptions_in_use(ROOT) == NAMED


def test_no_circle() -> None:
    assert circle(ROOT) == []


@pytest.mark.parametrize(
    ("file", "text", "arrow"),
    [
        ("decoders/a.py", "import harness.b", True),
        ("decoders/a.py", "def f():\n    from harness import b", True),
        ("decoders/sub/a.py", "from .. import a", False),
        ("harness/a.py", "from fuzzers.x import y", True),
        ("harness/a.py", "import decoders.a, harness", False),
        ("harness/a.py", "from __future__ import annotations", False),
        ("fuzzers/a.py", "from tests import x", True),
        ("tools/a.py", "import fuzzers", False),
        ("harness/a.py", 'VERBS = {"fuzz": ("fuzzers.b", "run")}', True),
        ("harness/cli.py", 'VERBS = {"fuzz": ("fuzzers.b", "run")}', False),
        ("harness/cli.py", "def f():\n    import fuzzers.b", True),
        ("harness/a.py", '"""Say what fuzzers.b does."""', False),
    ],
)
def test_arrows_are_seen(tmp_path: Path, file: str, text: str, arrow: bool) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    (tmp_path / "fuzzers").mkdir(exist_ok=True)
    (tmp_path / "fuzzers/b.py").write_text("")
    assert bool(reverse_arrows(tmp_path)) == arrow


@pytest.mark.parametrize(
    ("first", "second", "circular"),
    [
        ("import decoders.b", "import decoders.a", True),
        ("from decoders import b", "from . import a", True),
        ("from .b import x", "try:\n    from .a import y\nexcept E:\n    pass", True),
        ("from decoders import b", "def f():\n    from decoders import a", False),
        ("import decoders.b", "if TYPE_CHECKING:\n    import decoders.a", False),
        ("import decoders.b", "import decoders", False),
    ],
)
def test_circles_are_seen(tmp_path: Path, first: str, second: str, circular: bool) -> None:
    (tmp_path / "decoders").mkdir()
    (tmp_path / "decoders/__init__.py").write_text("")
    (tmp_path / "decoders/a.py").write_text(first)
    (tmp_path / "decoders/b.py").write_text(second)
    assert bool(circle(tmp_path)) == circular
