"""The forms that a trace can be written in, by the end of the file's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.errors import HarnessError
from harness.export.program import Program
from harness.export.text import qtest_script, shell_script
from harness.export.virtio import program as virtio_program
from harness.export.vtd import program as vtd_program
from harness.findings import Finding
from harness.minimise.trace import Trace
from harness.model.config import UnitConfig
from harness.replay import unit_config
from harness.trace import TraceWriter, write_text


def program_of(trace: Trace, finding: Finding | None = None) -> Program:
    """Return what shows a trace to a QEMU; what is permitted comes from the finding.

    Errors: HarnessError for a unit that QEMU does not have.
    """
    vtd = isinstance(unit_config(trace.header), UnitConfig)
    return (vtd_program if vtd else virtio_program)(trace, finding)


def _write_trace(path: Path, trace: Trace) -> None:
    with TraceWriter.create(path, trace.header, compact=True) as writer:
        for event in trace.events:
            writer.append(event)


def _write_text(path: Path, trace: Trace) -> None:
    write_text(path, trace.header, trace.events)


def _write_qtest(path: Path, trace: Trace) -> None:
    path.write_text(qtest_script(program_of(trace), ""), encoding="utf-8")


def _write_shell(path: Path, trace: Trace) -> None:
    path.write_text(shell_script(program_of(trace), ""), encoding="utf-8")


FORMS: Final[dict[str, Callable[[Path, Trace], None]]] = {
    ".trace": _write_trace,
    ".txt": _write_text,
    ".qtest": _write_qtest,
    ".sh": _write_shell,
}
"""Writers by the end of the name: both forms of a trace, qtest commands, and a script of these."""


def form_of(path: Path) -> str:
    """Return which form a file's name asks for.

    Errors: HarnessError when it asks for none.
    """
    if path.suffix not in FORMS:
        *most, last = FORMS
        raise HarnessError(f"{path}: name it {', '.join(most)} or {last} to say which form it gets")
    return path.suffix


def write(path: Path, form: str, trace: Trace) -> None:
    """Write a trace in a form."""
    FORMS[form](path, trace)
