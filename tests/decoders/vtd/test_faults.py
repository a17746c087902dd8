"""Fault records and fault reasons."""

from __future__ import annotations

import re

import pytest

from decoders.vtd import FAULT_REASONS, FaultRecordRegister, QueueError, Reason, decode

# VirtualBox include/VBox/iommu-intel.h, VTDADDRFAULT and VTDIRFAULT; Linux drivers/iommu/intel/
# dmar.c has all but 0x0e, 0x29, 0x33, 0x7d, 0x88, 0x89 and 0x91.
CODES = [
    *range(0x01, 0x0F),
    *range(0x20, 0x2A),
    *range(0x30, 0x34),
    *range(0x38, 0x3B),
    *range(0x40, 0x49),
    *range(0x50, 0x53),
    *range(0x58, 0x5E),
    *range(0x70, 0x7E),
    *range(0x80, 0x8A),
    0x90,
    0x91,
]

# The specification numbers the conditions of each group.
TAGS = {
    "LRT": [0x08, 0x01, 0x0A],
    "LCT": [0x09, 0x02, 0x0B, 0x03, 0x0D],
    "LGN": [0x04, 0x05, 0x06, 0x0E],
    "LSS": [0x07, 0x0C],
    "RTA": [0x30, 0x31, 0x32, 0x33],
    "SRT": [0x38, 0x39, 0x3A],
    "SCT": list(range(0x40, 0x49)),
    "SPD": [0x50, 0x51, 0x52],
    "SPT": list(range(0x58, 0x5E)),
    "SFS": [*range(0x70, 0x78), 0x90, 0x91],
    "SSS": list(range(0x78, 0x7E)),
    "SGN": list(range(0x80, 0x8A)),
}


def test_every_code_is_described() -> None:
    assert list(FAULT_REASONS) == CODES
    assert [reason.value for reason in Reason] == CODES
    assert all(reason.code == code for code, reason in FAULT_REASONS.items())


def test_tags_number_the_conditions() -> None:
    found = {reason.tag: code for code, reason in FAULT_REASONS.items() if reason.tag}
    expected = {
        f"{group}.{number}": code
        for group, codes in TAGS.items()
        for number, code in enumerate(codes, 1)
    }
    assert found == expected


def test_texts_are_one_line() -> None:
    for reason in FAULT_REASONS.values():
        assert re.fullmatch(r"[A-Za-z][\w ,:/_-]+", reason.text), reason


# QEMU vtd_qualified_faults, as far as it is explicit.
@pytest.mark.parametrize("code", [0x01, 0x08, 0x09, 0x0A, 0x50, 0x58])
def test_faults_without_an_entry_are_unqualified(code: int) -> None:
    assert not FAULT_REASONS[code].qualified


@pytest.mark.parametrize(
    "code",
    [
        *range(0x02, 0x08),
        *range(0x0C, 0x0F),
        0x51,
        0x59,
        0x5B,
        *range(0x70, 0x74),
        0x80,
        0x81,
        0x85,
        0x87,
        0x91,
    ],
)
def test_faults_after_an_entry_are_qualified(code: int) -> None:
    assert FAULT_REASONS[code].qualified


def test_qemus_oversight_is_not_followed() -> None:
    assert FAULT_REASONS[Reason.CONTEXT_RESERVED].qualified


def test_queue_errors() -> None:
    assert [error.name for error in QueueError] == [
        "NONE",
        "TAIL",
        "FETCH",
        "TYPE",
        "RESERVED",
        "WIDTH",
        "ALIGNMENT",
        "TABLE_MODE",
    ]
    assert [error.value for error in QueueError] == list(range(8))


def test_a_fault_record_as_qemu_fills_it() -> None:
    record = decode(FaultRecordRegister, (0xFFFFF000, 0xC000_0006_0000_0018), "record[0]")
    assert (record.fi, record.sid, record.fr) == (0xFFFFF, 0x18, Reason.NO_READ)
    assert (record.t1, record.t2, record.f) == (1, 0, 1)
