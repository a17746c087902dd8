"""What the pages for people promise: every verb, every page, and what shows each finding."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from harness.cli import VERBS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FINDINGS = sorted((DOCS / "findings").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
NAMED_TEST = re.compile(r"`(test_\w+)`")
TEST_FILE = re.compile(r"`(tests/[\w/]+\.py)`")
SCRIPT = re.compile(r"`([\w-]+\.sh)`")


def verbs_of(readme: str) -> set[str]:
    """Read the first column of the table below the heading Commands."""
    table = readme.split("\n## Commands\n")[1].split("\n\n")[0].strip()
    rows = table.splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_the_readme_lists_every_verb() -> None:
    assert verbs_of((ROOT / "README.md").read_text()) == set(VERBS)


def test_every_page_is_listed() -> None:
    listed = set(LINK.findall((DOCS / "README.md").read_text()))
    there = {path.name for path in DOCS.iterdir() if path.name != "README.md"}
    assert listed == there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", FINDINGS, ids=lambda page: page.stem)
def test_a_finding_names_what_shows_it(page: Path) -> None:
    """A script beside the page, or tests; each that is named is there."""
    text = page.read_text()
    scripts = SCRIPT.findall(text)
    assert [name for name in scripts if not (page.parent / name).exists()] == []
    tests = set(NAMED_TEST.findall(text))
    files = [ROOT / name for name in TEST_FILE.findall(text)]
    assert [path for path in files if not path.exists()] == []
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_bytes()))]
    assert tests - {node.name for node in nodes if isinstance(node, ast.FunctionDef)} == set()
    assert scripts or tests, "nothing shows it"


@pytest.mark.parametrize("script", sorted((DOCS / "findings").glob("*.sh")), ids=lambda s: s.stem)
def test_a_script_belongs_to_a_page(script: Path) -> None:
    page = script.with_suffix(".md")
    assert page in FINDINGS
    assert script.name in page.read_text()
    assert f"docs/findings/{page.name}" in script.read_text()
