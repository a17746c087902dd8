"""Signatures: what changes from one occurrence to the next is left out, the rest is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from decoders.errors import DecodeError
from decoders.events import (
    Access,
    AccessKind,
    Descriptor,
    Fault,
    FaultRecord,
    RegRead,
    Request,
    Role,
    StatusWrite,
    Translation,
)
from harness.findings import Finding, FindingKind
from harness.signature import CRASH, HANG, Signature, of_crash, of_finding

ACCESS = Access(0x18, None, 0x5000, AccessKind.READ, Fault(0x57))
FINDING = Finding(
    7, FindingKind.DIVERGENCE, "access", Fault(0x57), (Translation(0x1000, 0xFFF),),
    ((int(Role.CONTEXT), 0, 0x3000, 1), (int(Role.SECOND_STAGE), 2, 0x4000, 3)),
)  # fmt: skip


def test_a_finding_is_named_by_its_outcomes_and_its_last_step() -> None:
    assert of_finding(FINDING, ACCESS) == Signature(
        "divergence", "Access", "access", "translation -> fault 0x57", "second stage level 2"
    )


def test_addresses_and_numbers_of_events_do_not_count() -> None:
    moved = replace(
        FINDING, event=99, permitted=(Translation(0x77000, 0xFFF),), filled_by=3, changed_by=4,
        steps=((int(Role.SECOND_STAGE), 2, 0x9000, 0x8003),),
    )  # fmt: skip
    assert (
        of_finding(moved, replace(ACCESS, iova=0x9000, sid=0x20)).key
        == of_finding(FINDING, ACCESS).key
    )


@pytest.mark.parametrize(
    "changed",
    [
        replace(FINDING, kind=FindingKind.STALE_USE),
        replace(FINDING, observed=Fault(0x58)),
        replace(FINDING, observed=Translation(0x1000, 0x1FFFFF)),
        replace(FINDING, permitted=(Fault(0x05),)),
        replace(FINDING, cache="iotlb"),
        replace(FINDING, steps=((int(Role.SECOND_STAGE), 1, 0x4000, 3),)),
    ],
    ids=["kind", "observed", "wider", "permitted", "cache", "step"],
)
def test_what_tells_defects_apart_counts(changed: Finding) -> None:
    assert of_finding(changed, ACCESS).key != of_finding(FINDING, ACCESS).key


def test_requests_are_told_apart_by_type() -> None:
    found = Finding(1, FindingKind.DIVERGENCE, "request", bytes(4), (b"\x02\0\0\0",))
    attach, mapped = Request(b"\x01", 4, bytes(4)), Request(b"\x03", 4, bytes(4))
    assert of_finding(found, attach).event == "Request ATTACH"
    assert of_finding(found, mapped).event == "Request MAP"


def test_where_luck_decided_both_answers_are_named() -> None:
    outcomes = (Fault(0x57), Translation(0x1000, 0xFFF))
    luck = replace(FINDING, kind=FindingKind.UNFLUSHED, permitted=outcomes)
    assert of_finding(luck, ACCESS).outcome == "translation -> fault 0x57"


def test_a_register_is_named() -> None:
    found = Finding(1, FindingKind.DIVERGENCE, "register", 0x10, (0,))
    assert of_finding(found, RegRead(0x34, 4, 0x10)).event == "RegRead FSTS"


def test_of_a_register_the_fields_are_named_that_differ() -> None:
    found = Finding(1, FindingKind.DIVERGENCE, "register", 0x10, (0x100,))
    assert of_finding(found, RegRead(0x34, 4, 0x10)).outcome == "iqe 0 -> 1, fri"


@pytest.mark.parametrize(
    ("high", "outcome"),
    [
        (1 << 31, "fault record: pp 0 -> 1"),
        # PV says nothing where there should be no PASID.
        (1 << 31 | 0xFFFFF << 40, "fault record: pp 0 -> 1"),
        (0x20, "fault record: sid"),
        (0x07 << 32, "fault record 0x05 -> fault record 0x07"),
    ],
    ids=["pp", "pp and pv", "source", "reason"],
)
def test_of_a_fault_record_the_fields_are_named_unless_the_fault_is_another(
    high: int, outcome: str
) -> None:
    right = FaultRecord(0, 0x1000, 5 << 32 | 0x18)
    seen = FaultRecord(0, 0x1000, right.high ^ (high if high >> 32 != 7 else 2 << 32))
    found = Finding(1, FindingKind.DIVERGENCE, "fault-record", seen, (right,))
    assert of_finding(found, seen).outcome == outcome


@pytest.mark.parametrize(
    ("observed", "permitted", "outcome"),
    [
        (None, Descriptor((0x12, 0)), "IotlbInvalidation -> nothing"),
        (StatusWrite(0x1000, 5), None, "nothing -> StatusWrite"),
        (FaultRecord(0, 0x1000, 1 << 63 | 5 << 32), None, "nothing -> fault record 0x05"),
        (b"\x02\0\0\0", b"\0\0\0\0", "status 0, 4 bytes -> status 2, 4 bytes"),
    ],
)
def test_observations_and_answers(observed: object, permitted: object, outcome: str) -> None:
    many = () if permitted is None else (permitted,)
    found = Finding(1, FindingKind.DIVERGENCE, "x", observed, many)  # type: ignore[arg-type]
    assert of_finding(found, Request(b"\x01", 4, None)).outcome == outcome


ASAN = """
==4711==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x602000000011 at pc 0x55d
READ of size 8 at 0x602000000011 thread T0
    #0 0x55d0 in __interceptor_memcpy (/usr/lib/libasan.so+0x1234)
    #1 0x55d1 in dmarewind::Walk<4>::step(unsigned long, int) const /src/core/walk.cpp:{line}:7
    #2 0x55d2 in dmarewind::translate(Unit const&) /src/core/translator.cpp:88:3
    #3 0x55d3 in LLVMFuzzerTestOneInput /src/fuzz.cpp:9
    #4 0x55d4 in fuzzer::Fuzzer::ExecuteCallback(unsigned char const*, unsigned long)
"""


def test_a_sanitizers_report_is_named_by_its_own_frames() -> None:
    found = of_crash(ASAN.format(line=12))
    assert found == Signature(
        CRASH, "", "sanitizer", "heap-buffer-overflow",
        "dmarewind::Walk::step < dmarewind::translate < LLVMFuzzerTestOneInput",
    )  # fmt: skip
    assert of_crash(ASAN.format(line=99).replace("602000000011", "602000000055")) == found


QEMU = (
    "qemu-system-x86_64 ended (SIGABRT); it printed: qemu-system-x86_64: "
    "../hw/i386/intel_iommu.c:{line}: vtd_switch: Assertion `as->root_cache == {n}' failed."
)


def test_an_assertion_is_named_by_function_and_condition() -> None:
    found = of_crash(QEMU.format(line=2345, n=1))
    assert found.subject == "assertion"
    assert (found.outcome, found.step) == ("as->root_cache == N", "intel_iommu.c: vtd_switch")
    assert of_crash(QEMU.format(line=9, n=2)).key == found.key
    assert of_crash(QEMU.format(line=9, n=2).replace("vtd_switch", "other")).key != found.key


@pytest.mark.parametrize(
    ("text", "kind", "outcome"),
    [
        ("ERROR:../util/x.c:12:take: assertion failed: (a < 12)", CRASH,
         "assertion failed: (a < N)"),
        ("core.cpp:3:9: runtime error: shift exponent 64 is too large", CRASH,
         "shift exponent N is too large"),
        ("==1== ERROR: libFuzzer: timeout after 5 seconds", HANG, "timeout after"),
        ("==1== ERROR: libFuzzer: deadly signal", CRASH, "deadly signal"),
        ("qemu-system-x86_64 ended (SIGSEGV)", CRASH, "SIGSEGV"),
        ("no answer within 5 s", HANG, ""),
        ('Traceback:\n  File "/a/b.py", line 3, in walk\n    x\nKeyError: 12\n', CRASH, "KeyError"),
    ],
)  # fmt: skip
def test_other_ends(text: str, kind: str, outcome: str) -> None:
    found = of_crash(text)
    assert (found.kind, found.outcome) == (kind, outcome)


def test_json_gives_the_same_signature() -> None:
    found = of_finding(FINDING, ACCESS)
    assert Signature.from_json(json.loads(json.dumps(found.as_json()))) == found


@pytest.mark.parametrize(
    "plain", [[], {"kind": 3}, {"kind": "crash", "key": "0" * 12}], ids=["list", "number", "key"]
)
def test_json_that_is_none_is_refused(plain: object) -> None:
    with pytest.raises(DecodeError):
        Signature.from_json(plain)
