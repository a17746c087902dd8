"""Our fields against those that iasl (acpica-tools) shows, one by one.

What the installed iasl is too old to know (Debian 12's is of 2020) is passed over.
"""

from __future__ import annotations

import functools
import random
import re
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from decoders.acpi import READERS, read, validate
from decoders.acpi.tree import Rule
from tests.decoders.acpi.blobs import ALL, MADE, QEMU
from tests.decoders.acpi.disassembly import differences
from tests.decoders.acpi.test_hostile import mutate
from tests.writers import acpi as w

IASL = shutil.which("iasl")
needs_iasl = pytest.mark.skipif(IASL is None, reason="iasl (acpica-tools) is not installed")

FIRST_VERSION = {"VIOT": 20210105, "IORT": 0, "DMAR": 0, "IVRS": 0}
"""Versions of iasl that know a table at all."""
NEWEST_STRUCTURES = 20260408
"""The first version known to have every structure that is here."""


def iasl(folder: Path, *words: str) -> str:
    assert IASL is not None
    done = subprocess.run(
        [IASL, *words],
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
    if IASL is None:
        return 0
    found = re.search(r"version (\d{8})", iasl(Path(), "-v"))
    return int(found[1]) if found else 0


def disassemble(folder: Path, data: bytes) -> tuple[str, str]:
    """Give the disassembly of a table, and what iasl said meanwhile."""
    (folder / "table.dat").write_bytes(data)
    said = iasl(folder, "-d", "table.dat")
    text = (folder / "table.dsl").read_text(errors="replace")
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
    assert [line for line in wrong if version() >= NEWEST_STRUCTURES or not older(line)] == []
    assert equal > 20


def older(line: str) -> bool:
    """Say whether a difference is one of age.

    iasl of Debian 12 takes what came later for reserved, and stops at what it does not know.
    """
    return bool(re.search(r"Reserved at|iasl does not show it", line))


@needs_iasl
@pytest.mark.parametrize("path", QEMU, ids=lambda path: path.name)
def test_qemu_tables_in_the_installed_iasl(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    text, said = disassemble(tmp_path, data)
    if version() < FIRST_VERSION[path.suffix[1:].upper()]:
        assert "Unknown" in text + said
        return
    wrong, equal = differences(read(data), text)
    assert [line for line in wrong if version() >= NEWEST_STRUCTURES or not older(line)] == []
    assert equal > 20


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
)


@needs_iasl
@pytest.mark.parametrize("name", REJECTED)
def test_what_iasl_rejects_we_report(name: str, tmp_path: Path) -> None:
    data, rule = REJECTED[name]
    text, said = disassemble(tmp_path, data)
    assert COMPLAINT.search(text + said), text + said
    assert rule in {violation.rule for violation in validate(data)}


EXPLAINED = re.compile(
    # Padding between device entries has no name in iasl.
    r"Subtable Type : 00 \[Unknown/Reserved Device Entry"
    # A draft VIOT is taken for a final one with nodes at 0.
    r"|\[000h 0000 001h\] +Type : 56 \[Unknown Subtable Type"
    # What iasl of Debian 12 does not know.
    r"|Unknown ACPI table signature \[VIOT\]|Unknown IORT node type 0x[67]\b"
    r"|Unknown IVRS device entry type/length: 0xF0|Unknown IVRS subtable type 0x(11|40|22)"
    r"|Subtable Type : (?:11|40|22) \[Unknown Subtable Type"
    r"|Subtable Type : 000[56] \[Unknown Subtable Type|Unknown DMAR subtable type 0x[56]\b"
)
"""Complaints that are not about the table; corpora/acpi/README.md lists them."""


@needs_iasl
def test_what_iasl_rejects_of_mutated_tables_we_report(tmp_path: Path) -> None:
    choose = random.Random(77)
    blobs = list(ALL.values())
    rejected = 0
    for _ in range(MUTATED):
        data = mutate(choose.choice(blobs), choose)
        if data[:4] not in READERS:  # iasl takes all that it does not know for AML
            continue
        text, said = disassemble(tmp_path, data)
        complaints = [line for line in (text + said).splitlines() if COMPLAINT.search(line)]
        complaints = [line for line in complaints if not EXPLAINED.search(line)]
        if complaints:
            rejected += 1
            assert validate(data), complaints
    assert rejected > MUTATED // 5
