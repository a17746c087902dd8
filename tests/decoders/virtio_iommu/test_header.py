"""Our structures and numbers against Linux's header, as a compiler lays it out."""

from __future__ import annotations

import json
import shutil
import subprocess
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

import pytest

from decoders.bytewise import ByteStructure, field_sizes, packed
from decoders.virtio_iommu import constants
from decoders.virtio_iommu import structures as s

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "golden/virtio-iommu-uapi.json").read_text(encoding="utf-8")
)
STRUCTS: dict[str, dict[str, Any]] = GOLDEN["structs"]
DEFINES: dict[str, int] = GOLDEN["defines"]

COUNTERPARTS: dict[type[ByteStructure], str] = {
    s.Config: "virtio_iommu_config",
    s.RequestHead: "virtio_iommu_req_head",
    s.RequestTail: "virtio_iommu_req_tail",
    s.Attach: "virtio_iommu_req_attach",
    s.Detach: "virtio_iommu_req_detach",
    s.Map: "virtio_iommu_req_map",
    s.Unmap: "virtio_iommu_req_unmap",
    s.Probe: "virtio_iommu_req_probe",
    s.PropertyHead: "virtio_iommu_probe_property",
    s.ResvMem: "virtio_iommu_probe_resv_mem",
    s.FaultReport: "virtio_iommu_fault",
}

ENUMS: dict[str, type[IntEnum | IntFlag]] = {
    "F": constants.Feature,
    "T": constants.RequestType,
    "S": constants.Status,
    "ATTACH_F": constants.AttachFlag,
    "MAP_F": constants.MapFlag,
    "FAULT_R": constants.FaultReason,
    "FAULT_F": constants.FaultFlag,
    "PROBE_T": constants.PropertyType,
    "RESV_MEM_T": constants.ResvSubtype,
}
"""Enums by what the names of their macros have behind VIRTIO_IOMMU_."""


def flattened(struct: str) -> dict[str, tuple[int, int]]:
    """Give offset and size by the name that we have for a member; without tails."""
    flat: dict[str, tuple[int, int]] = {}
    for name, offset, size, kind in STRUCTS[struct]["members"]:
        inner = STRUCTS.get(kind.removeprefix("struct "), {"members": []})["members"]
        if name in ("tail", "properties"):
            continue
        for part, at, width, _ in inner:
            if name != "head":
                part = f"{name}_{part}"
            elif part == "reserved":
                part = "reserved_head"
            flat[part] = offset + at, width
        if not inner:
            flat[name] = offset, size
    return flat


@pytest.mark.parametrize("cls", COUNTERPARTS, ids=lambda cls: cls.__name__)
def test_fields_are_where_the_header_has_them(cls: type[ByteStructure]) -> None:
    ours = {name: (packed(cls).offset(name), size) for name, size in field_sizes(cls)}
    assert ours == flattened(COUNTERPARTS[cls])


@pytest.mark.parametrize("cls", COUNTERPARTS, ids=lambda cls: cls.__name__)
def test_sizes_are_those_of_the_header(cls: type[ByteStructure]) -> None:
    struct = STRUCTS[COUNTERPARTS[cls]]
    tail = sum(size for name, _, size, _ in struct["members"] if name == "tail")
    assert packed(cls).size == struct["size"] - tail


def test_every_structure_is_compared() -> None:
    declared = {v for v in vars(s).values() if isinstance(v, type) and v.__module__ == s.__name__}
    assert declared == set(COUNTERPARTS)
    inner = {"virtio_iommu_range_32", "virtio_iommu_range_64"}
    assert set(STRUCTS) - set(COUNTERPARTS.values()) == inner


@pytest.mark.parametrize("prefix", ENUMS)
def test_numbers_are_those_of_the_header(prefix: str) -> None:
    start = f"VIRTIO_IOMMU_{prefix}_"
    theirs = {name.removeprefix(start): n for name, n in DEFINES.items() if name.startswith(start)}
    theirs.pop("MASK", None)
    if prefix == "F":  # numbers of bits
        theirs = {name: 1 << bit for name, bit in theirs.items()}
    ours = {member.name: int(member) for member in ENUMS[prefix]}
    assert ours == theirs


def test_the_mask_of_property_types() -> None:
    assert DEFINES["VIRTIO_IOMMU_PROBE_T_MASK"] == constants.PROPERTY_TYPE_MASK


# --- the header of this system -------------------------------------------------------------------

HEADER = Path("/usr/include/linux/virtio_iommu.h")
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def lacking() -> str | None:
    """Say why the installed header cannot be compiled."""
    if not HEADER.exists():
        return f"{HEADER} (linux-libc-dev) is not installed"
    if "bypass;" not in HEADER.read_text(encoding="utf-8"):
        return f"{HEADER} is older than Linux 5.18"
    return None if COMPILER else "no C compiler is installed"


def program() -> str:
    """Give a C program that prints a line for each size, offset and number."""
    lines = [
        "#include <stddef.h>",
        "#include <stdio.h>",
        f"#include <{HEADER}>",
        "int main(void) {",
    ]
    for name, struct in STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        for member, *_ in struct["members"]:
            place = f"offsetof(struct {name}, {member})"
            lines.append(f'printf("{name}.{member} %zu\\n", {place});')
    lines += [f'printf("{name} %llu\\n", (unsigned long long){name});' for name in DEFINES]
    return "\n".join([*lines, "return 0; }", ""])


@pytest.mark.optional
def test_the_installed_header_says_the_same(tmp_path: Path) -> None:
    if reason := lacking():
        pytest.skip(reason)
    assert COMPILER is not None
    (tmp_path / "offsets.c").write_text(program(), encoding="ascii")
    built = tmp_path / "offsets"
    command = [COMPILER, "-o", str(built), str(tmp_path / "offsets.c")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    printed = subprocess.run([built], capture_output=True, text=True, timeout=60, check=True).stdout
    compiled = {name: int(n) for name, n in (line.split() for line in printed.splitlines())}
    expected = {name: struct["size"] for name, struct in STRUCTS.items()}
    for name, struct in STRUCTS.items():
        expected |= {f"{name}.{member}": offset for member, offset, *_ in struct["members"]}
    assert compiled == expected | DEFINES
