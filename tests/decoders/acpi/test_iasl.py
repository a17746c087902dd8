"""Our fields against those that iasl (acpica-tools) shows, one by one.

The program is the command line in DMAREWIND_IASL, or the iasl in PATH. Seen so far: 20200925
(Debian 12), 20250404 (Debian 13) and 20260408 (built from ACPICA's sources). What a version is too
old to know is passed over, and nothing else.
"""

from __future__ import annotations

import functools
import os
import random
import re
import resource
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from decoders.acpi import READERS, read, validate
from decoders.acpi.tree import Rule
from tests.decoders.acpi.blobs import ALL, MADE
from tests.decoders.acpi.disassembly import differences
from tests.decoders.acpi.test_hostile import mutate
from tests.writers import acpi as w

IASL = shlex.split(os.environ.get("DMAREWIND_IASL", "")) or [shutil.which("iasl") or ""]
needs_iasl = pytest.mark.skipif(not IASL[0], reason="iasl (acpica-tools) is not installed")

FIRST_VERSION = {"VIOT": 20210105, "IORT": 0, "DMAR": 0, "IVRS": 0}
"""Versions of iasl that know a table at all."""
LEARNT = (
    (20250404, r"Reserved at \S+ we say dmar\.node\[\d\]\.size"),
    (20250404, r"Reserved at \S+ we say dmar\.node\[\d\]\.scope\[\d\]\.flags"),
    (20250404, r"dmar\.node\[[67]\]\."),  # SATC, SIDP
    (20250404, r"iort\.node\[6\]\."),  # reserved memory
    (20260408, r"iort\.node\[7\]\."),  # IWB
    (20250404, r"ivrs\.node\[1\]\.entry\[1\]\.|ivrs\.node\[2\]\."),  # entry 0xf0, block 0x40
)
"""Differences of age in what `blobs.made` makes: the oldest version seen that has them not."""
PASSED_OVER = r"ivrs\.node\[2\]\.entry\[1\]\.uid_(type|length) .*: iasl does not show it"
"""Where there is no UID, iasl does not show that either."""


def iasl(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [*IASL, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        preexec_fn=limit,
        check=False,
    )
    died = f"Invalid: iasl ended by signal {-done.returncode}" if done.returncode < 0 else ""
    return done.stdout + done.stderr + died


def limit() -> None:
    """Keep iasl from writing for ever, which it does where a length is 0."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    resource.setrlimit(resource.RLIMIT_CPU, (2, 2))


@functools.cache
def version() -> int:
    said = iasl(Path(), "-v")
    found = re.search(r"version (\d{8})", said)
    assert found is not None, said
    return int(found[1])


def disassemble(folder: Path, data: bytes) -> tuple[str, str]:
    """Give the disassembly of a table, if there is one, and what iasl said meanwhile."""
    shown = folder / "table.dsl"
    shown.unlink(missing_ok=True)
    (folder / "table.dat").write_bytes(data)
    said = iasl(folder, "-d", "table.dat")
    text = shown.read_text(errors="replace") if shown.exists() else ""
    return text.split("Raw Table Data")[0], said


@needs_iasl
@pytest.mark.parametrize("signature", ["IORT", "DMAR", "IVRS", "VIOT"])
def test_templates_of_the_installed_iasl(signature: str, tmp_path: Path) -> None:
    name = signature.lower()
    said = iasl(tmp_path, "-T", signature)
    if version() < FIRST_VERSION[signature]:
        assert "Unrecognized ACPI table signature" in said
        return
    iasl(tmp_path, "-p", name, f"{name}.asl")
    data = (tmp_path / f"{name}.aml").read_bytes()
    table = read(data)
    assert table.encode() == data
    wrong, equal = differences(table, disassemble(tmp_path, data)[0])
    assert unexplained(wrong) == []
    assert equal > 20


def unexplained(wrong: list[str]) -> list[str]:
    """Leave out what the installed version is too old for, or passes over."""
    known = [pattern for since, pattern in LEARNT if version() < since] + [PASSED_OVER]
    return [line for line in wrong if not re.match("|".join(known), line)]


@needs_iasl
@pytest.mark.parametrize("name", ALL)
def test_our_tables_in_the_installed_iasl(name: str, tmp_path: Path) -> None:
    table = read(ALL[name])
    text, said = disassemble(tmp_path, ALL[name])
    if version() < FIRST_VERSION[table.signature] or table.inner is not None:
        assert "Unknown" in text + said
        return
    wrong, equal = differences(table, text)
    assert unexplained(wrong) == []
    assert equal > 15


REJECTED = {
    "checksum": (MADE["dmar"][:9] + b"\0" + MADE["dmar"][10:], Rule.CHECKSUM),
    "dmar type": (w.dmar([w.dmar_node(99, b"")]), Rule.UNKNOWN_TYPE),
    "dmar zero length": (w.dmar([w.dmar_node(0, bytes(12), 0)]), Rule.LENGTH),
    "dmar beyond": (w.dmar([w.dmar_node(0, bytes(12), 99)]), Rule.LENGTH),
    "ivrs type": (w.ivrs([b"\x55\0\x08\0\0\0\0\0"]), Rule.UNKNOWN_TYPE),
    "ivrs zero length": (w.ivrs([b"\x55\0\0\0\0\0\0\0"]), Rule.LENGTH),
    "ivrs entry type": (w.ivrs([w.ivhd(0x4000, w.entry(0x20))]), Rule.UNKNOWN_TYPE),
    "iort type": (w.iort([w.iort_node(99, b"")]), Rule.UNKNOWN_TYPE),
    "iort zero length": (w.iort([w.iort_node(99, b"", length=0)]), Rule.LENGTH),
}
MUTATED = 100
COMPLAINT = re.compile(
    r"\*\*\*\*|Invalid|Unknown|Incorrect checksum|does not fit|Table length|incorrect|past"
    r"|too long for file|not contain a valid"
)


@needs_iasl
@pytest.mark.parametrize("name", REJECTED)
def test_what_iasl_rejects_we_report(name: str, tmp_path: Path) -> None:
    data, rule = REJECTED[name]
    text, said = disassemble(tmp_path, data)
    assert COMPLAINT.search(text + said), text + said
    assert rule in {violation.rule for violation in validate(data)}


STILL = 99999999
EXPLAINED = (
    # Padding between device entries has no name in iasl.
    (STILL, r"Subtable Type : 00 \[Unknown/Reserved Device Entry"),
    # A draft VIOT is taken for a final one with nodes at 0.
    (STILL, r"\[000h 0000 001h\] +Type : 56 \[Unknown Subtable Type"),
    (STILL, r"\*\*\* Unknown VIOT node type 0x56"),
    (20210105, r"Unknown ACPI table signature \[VIOT\]"),
    (20250404, r"Unknown IORT node type 0x6\b"),
    (20260408, r"Unknown IORT node type 0x7\b"),
    (20250404, r"Unknown IVRS device entry type/length: 0xF0"),
    (20250404, r"Unknown IVRS subtable type 0x(11|40|22)"),
    (20250404, r"Subtable Type : (?:11|40|22) \[Unknown Subtable Type"),
    (
        20250404,
        r"Subtable Type : 000[56] \[Unknown Subtable Type|Unknown DMAR subtable type 0x[56]\b",
    ),
)
"""Complaints that are not about the table, and the version that ends them (see corpora/acpi)."""


@needs_iasl
def test_what_iasl_rejects_of_mutated_tables_we_report(tmp_path: Path) -> None:
    choose = random.Random(77)
    blobs = list(ALL.values())
    rejected = 0
    explained = "|".join(pattern for until, pattern in EXPLAINED if version() < until)
    for _ in range(MUTATED):
        data = mutate(choose.choice(blobs), choose)
        if data[:4] not in READERS:  # iasl takes all that it does not know for AML
            continue
        text, said = disassemble(tmp_path, data)
        complaints = [line for line in (text + said).splitlines() if COMPLAINT.search(line)]
        complaints = [line for line in complaints if not re.search(explained, line)]
        if complaints:
            rejected += 1
            assert validate(data), complaints
    assert rejected > MUTATED // 5
