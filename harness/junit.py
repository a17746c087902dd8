"""Write what came of tests as JUnit's XML, which CI systems show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree


@dataclass(frozen=True, slots=True)
class Test:
    """Name a test and say what came of it: problem is empty when it passed."""

    group: str
    name: str
    seconds: float
    problem: str


def document(suite_name: str, tests: Sequence[Test], seconds: float) -> bytes:
    """Return the XML of one suite."""
    failed = sum(bool(one.problem) for one in tests)
    suites = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        suites, "testsuite", name=suite_name, tests=str(len(tests)), failures=str(failed),
        errors="0", time=f"{seconds:.3f}",
    )  # fmt: skip
    for one in tests:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_printable(one.group), name=_printable(one.name),
            time=f"{one.seconds:.3f}",
        )  # fmt: skip
        if one.problem:
            text = _printable(one.problem)
            ElementTree.SubElement(case, "failure", message=text[:200]).text = text
    whole: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return whole


def _printable(text: str) -> str:
    """Return a text that XML can hold."""
    return "".join(one if one.isprintable() else "?" for one in text)
