"""Write a trace for people: a pytest file, and a bug report in Markdown."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Sequence
from importlib import metadata
from io import StringIO

from decoders.events import Event
from harness.decoded import unit_of
from harness.explain import explain
from harness.export.program import Program
from harness.minimise.explanation import paragraph
from harness.minimise.judges import Shown
from harness.minimise.trace import Trace
from harness.trace import write_text


def text_of(trace: Trace) -> str:
    """Return the text form of a trace."""
    stream = StringIO()
    write_text(stream, trace.header, trace.events)
    return stream.getvalue()


def pytest_file(trace: Trace, shown: Sequence[Shown], name: str) -> str:
    """Return a test that replays the trace and wants exactly the findings it shows now."""
    word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "trace"
    quoted = text_of(trace).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    signatures = "".join(
        f"    {json.dumps(one.signature.key)},  # {_ascii(str(one.signature))}\n" for one in shown
    )
    held = f"{{\n{signatures}}}" if shown else "set()"
    return (
        f'"""Replay {_ascii(name)}: model and native core find in it what they found before."""\n\n'
        "from __future__ import annotations\n\n"
        "import pytest\n\n"
        "from harness.regress import signatures\n"
        "from harness.trace import parse_text\n\n"
        f'TRACE = """\\\n{quoted}"""\n\n'
        f"SIGNATURES: set[str] = {held}\n\n\n"
        '@pytest.mark.parametrize("target", ["model", "native"])\n'
        f"def test_{word}(target: str) -> None:\n"
        "    header, events = parse_text(TRACE)\n"
        "    assert {one.key for one in signatures(target, header, events)} == SIGNATURES\n"
    )


def markdown(trace: Trace, shown: Shown | None, program: Program | None, script: str) -> str:
    """Return a bug report: versions, command line, what is seen, what is expected and why."""
    header = trace.header
    lines = [f"# {_title(trace, shown)}", ""]
    lines += ["| | |", "|---|---|"]
    known = {
        "recorded from": f"QEMU {header.source['qemu']}" if header.source.get("qemu") else "",
        "dialect": header.dialect,
        "judged by": f"dmarewind {_version()}, Python {platform.python_version()}",
        "signature": _named(shown, program),
        "asked": program.asked if program else "",
    }
    lines += [f"| {name} | {_cell(str(value))} |" for name, value in known.items() if value]
    if program is not None:
        lines += ["", "## Command line", "", "```", program.command_line(), "```"]
    if shown is not None:
        lines += ["", "## What is wrong", "", paragraph(shown, trace)]
        if shown.finding is not None:
            detail = explain(shown.finding, lambda n: _event(trace, n), unit_of(header).kind)
            lines += ["", "## Seen, permitted, and the walk", "", "```", detail, "```"]
    lines += ["", "## Trace", "", "```", text_of(trace).rstrip("\n"), "```"]
    if script:
        lines += ["", "## Script for a plain QEMU", "", "```sh", script.rstrip("\n"), "```"]
    return "\n".join(lines) + "\n"


def _named(shown: Shown | None, program: Program | None) -> str:
    if shown is None:
        asked = program is not None and program.asked
        return "no findings in the recording" + ("" if asked else "; QEMU was not asked")
    return f"`{shown.signature.key}`: {shown.signature}"


def _title(trace: Trace, shown: Shown | None) -> str:
    kind = unit_of(trace.header).kind
    return f"{kind}: {shown.signature}" if shown else f"{kind}: a trace not judged on QEMU"


def _event(trace: Trace, number: int) -> Event | None:
    return trace.events[number] if 0 <= number < len(trace.events) else None


def _version() -> str:
    try:
        return metadata.version("dmarewind")
    except metadata.PackageNotFoundError:
        return "0"


def _cell(text: str) -> str:
    return _ascii(text).replace("|", "\\|")


def _ascii(text: str) -> str:
    return re.sub(r'[^ -~]|"""', "?", text)
