"""The register page of a real intel-iommu: what it holds after a reset, a write and a migration."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from decoders.events import AccessKind, RegWrite, Store
from decoders.vtd import registers as vtd
from decoders.vtd.registers import Register
from harness.differential.machine import unit_config
from harness.model.dialects import dialect_named
from harness.model.unit import VtdUnit
from harness.qemu.vtd import POOL_START, Dma, VtdQemu

pytestmark = pytest.mark.qemu

PAGE_END = 0x230
"""Where QEMU's page of registers ends (DMAR_REG_SIZE)."""
COMMANDS = {"GCMD", "CCMD", "IQT", "IOTLB"}
"""Registers where a write does more than to change bits."""
PATTERNS = [0xFFFF_FFFF_FFFF_FFFF, 0, 0x5A5A_5A5A_5A5A_5A5A, 0xA5A5_A5A5_A5A5_A5A5]
BASE = 0x20_0000
ROOT, CONTEXT, TOP, QUEUE, STATUS = (BASE + 0x1000 * n for n in range(5))
TE, SRTP, QIE = 1 << 31, 1 << 30, 1 << 26


MACHINES = ["legacy", "second-stage", "first-stage", "remapping", "extended"]


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Iterator[VtdQemu]:
    with VtdQemu(request.param) as found:
        yield found


@pytest.fixture
def model(machine: VtdQemu) -> VtdUnit:
    machine.reset()
    own = dialect_named("qemu-{}.{}".format(*machine.version))
    return VtdUnit(unit_config(machine, own))


def registers(model: VtdUnit) -> list[Register]:
    return [r for r in model.registers.map.values() if r.offset + r.size <= PAGE_END]


def read(machine: VtdQemu, *which: Register) -> list[int]:
    return machine.step([], [], [(r.offset, r.size) for r in which], None).reads


def write(machine: VtdQemu, register: Register, value: int) -> None:
    machine.step([], [RegWrite(register.offset, register.size, value)], [], None)


def test_reset_values(machine: VtdQemu, model: VtdUnit) -> None:
    known = registers(model)
    assert len(known) >= 20
    expected = {r.name: hex(model.read_register(r.offset, r.size)) for r in known}
    seen = dict(zip(expected, map(hex, read(machine, *known)), strict=True))
    assert seen == expected


def readable(register: Register, value: int) -> int:
    """Return what QEMU shows of a register: the ring's address only once the queue is enabled."""
    return value & 0x807 if register.name == "IQA" else value


def test_what_a_write_changes(machine: VtdQemu, model: VtdUnit) -> None:
    written = 0
    for register in registers(model):
        if register.name in COMMANDS:
            continue
        for size in (4, 8) if register.size == 8 else (4,):
            for offset in range(register.offset, register.offset + register.size, size):
                for pattern in PATTERNS:
                    value = pattern & (1 << 8 * size) - 1
                    machine.step([], [RegWrite(offset, size, value)], [], None)
                    model.write_register(offset, size, value)
                    expected = model.read_register(register.offset, register.size)
                    (seen,) = read(machine, register)
                    what = f"{register.name}: {size} bytes {value:#x} at {offset:#x}"
                    assert hex(seen) == hex(readable(register, expected)), what
                    written += 1
    assert written > 150, "hardly any register was written"


def test_a_register_that_is_not_announced_stays_zero(machine: VtdQemu, model: VtdUnit) -> None:
    known = {at for r in registers(model) for at in range(r.offset, r.offset + r.size, 4)}
    for offset in sorted(set(range(0, PAGE_END, 4)) - known):
        step = machine.step([], [RegWrite(offset, 4, 0xFFFF_FFFF)], [(offset, 4)], None)
        assert step.reads == [0], hex(offset)


def program(machine: VtdQemu) -> None:
    """Map page 0 of every device to the first page of the pool, and enable all there is."""
    scalable = machine.extended_capability >> 43 & 1
    entries = []
    for device in range(len(machine.devices)):
        sid = machine.sid(device)
        entries.append(Store(ROOT + 16 * (sid >> 8), 8, CONTEXT | 1))
        entries.append(Store(CONTEXT + 16 * (sid & 0xFF), 8, TOP | 1))
        entries.append(Store(CONTEXT + 16 * (sid & 0xFF) + 8, 8, 1 << 8 | 2))
    for level in range(3):
        entries.append(Store(TOP + 0x4000 * level, 8, TOP + 0x4000 * (level + 1) | 3))
    entries.append(Store(TOP + 0xC000, 8, POOL_START | 3))
    machine.step(entries, [], [], None)
    write(machine, vtd.FECTL, 1 << 31)
    write(machine, vtd.RTADDR, ROOT)
    write(machine, vtd.GCMD, SRTP)
    write(machine, vtd.IQA, QUEUE | scalable << 11 | 1)
    write(machine, vtd.GCMD, QIE)
    write(machine, vtd.GCMD, TE | QIE)


def landed(machine: VtdQemu) -> list[int]:
    machine.pool.restore()
    seen = machine.step([], [], [], Dma(0, AccessKind.WRITE, 0))
    return [address for address, _ in seen.landed]


def test_a_migration_changes_nothing(machine: VtdQemu, model: VtdUnit) -> None:
    program(machine)
    known = registers(model)
    before = read(machine, *known)
    state = dict(zip((r.name for r in known), before, strict=True))
    assert state["GSTS"] == TE | SRTP | QIE, hex(state["GSTS"])
    assert state["IQA"] & ~0xFFF == QUEUE, "the ring is not in force"
    assert landed(machine) == [POOL_START]
    machine.migrate()
    after = dict(zip(state, read(machine, *known), strict=True))
    assert after == state
    assert landed(machine) == [POOL_START], "DMA went elsewhere after the migration"
    # The width of a slot is part of the state: a wait descriptor of this width is taken.
    wait = 0x1 << 32 | 1 << 5 | 5
    width = 32 if state["IQA"] >> 11 & 1 else 16
    machine.step([Store(QUEUE, 8, wait), Store(QUEUE + 8, 8, STATUS)], [], [], None)
    (head,) = machine.step(
        [], [RegWrite(vtd.IQT.offset, 8, width)], [(vtd.IQH.offset, 8)], None
    ).reads
    assert head == width
    assert machine.memory(STATUS, 4) == b"\1\0\0\0"


def test_a_reset_undoes_it_all(machine: VtdQemu, model: VtdUnit) -> None:
    program(machine)
    assert landed(machine) == [POOL_START]
    machine.reset()
    known = registers(model)
    assert read(machine, *known) == [model.read_register(r.offset, r.size) for r in known]
    assert landed(machine) == [], "DMA is still translated"
