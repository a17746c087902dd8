"""Page requests, device TLBs and virtual commands in the native core are those of the model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from decoders.events import (
    AccessKind,
    Attribute,
    DeviceTlbMessage,
    FaultRecord,
    Outcome,
    PageRequest,
    PageRequestFlag,
    PageRequestRecord,
    PageResponse,
    Translation,
)
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    DeviceTlbInvalidation,
    InvalidationWait,
    IotlbInvalidation,
    PageGroupResponse,
    PasidDeviceTlbInvalidation,
)
from decoders.vtd.register_fields import GlobalCommand, InvalidationQueueAddress, RootTableAddress
from decoders.vtd.registers import VIRTUAL_COMMANDS
from harness.differential.pair_vtd import VtdPair
from harness.findings import FindingKind
from harness.model.config import UnitConfig
from harness.model.dialects import DIALECTS
from harness.native import available
from tests.writers.platform import DEVICE, Platform, Space, descriptor, quadword, unit_config

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

OPERATIONS = int(os.environ.get("DMAREWIND_EQUALITY_OPERATIONS", "100000")) // 4
LIFE = 400
PASIDS = (None, 0, 3, 64)
PAGES = tuple(0x40_0000 + (number << 12) for number in range(5))
TARGETS = tuple(0x80_0000 + (number << 12) for number in range(4))
REQUESTS, INVALIDATIONS = 0x20_0000, 0x21_0000
"""Where the two queues are."""
QUEUE_SIZE = 0x1000

Operation = tuple[str, tuple[Any, ...]]


class Stores:
    """Take what a platform does to a unit for later."""

    def __init__(self) -> None:
        self.event = 0
        self.done: list[Operation] = []
        self.memory: dict[int, int] = {}

    def store(self, address: int, size: int, value: int) -> None:
        self.done.append(("store", (address, size, value)))
        self.memory[address] = value

    def load(self, address: int, length: int) -> bytes:
        return self.memory.get(address, 0).to_bytes(8, "little")[:length]

    def write_register(self, offset: int, size: int, value: int) -> None:
        self.done.append(("write_register", (offset, size, value)))


class Life:
    """Make up what software and devices with TLBs and page requests do."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.tail = 0
        self.last: list[Outcome] = []
        self.used: list[int] = list(TARGETS)
        self.made = Stores()
        self.spaces: list[Space] = []

    def config(self) -> UnitConfig:
        """Return a unit with or without what changes the answers."""
        random = self.random
        config = unit_config(
            ram=random.random() < 0.3,
            prs=int(random.random() < 0.9),
            adms=random.getrandbits(1),
            pds=random.getrandbits(1),
            vcs=random.getrandbits(1),
            nfr=random.choice((0, 3)),
            virtual_commands=random.choice((0, *VIRTUAL_COMMANDS)),
        )
        dialect = random.choice(sorted(DIALECTS.items()))[1]
        traced = random.random() < 0.8
        self.group = VIRTUAL_COMMANDS.get(config.virtual_commands, {})
        self.platform = Platform(self.made, config)  # type: ignore[arg-type]
        return replace(config, dialect=replace(dialect, device_messages_traced=traced))

    def opening(self) -> list[Operation]:
        """Return what sets up tables, queues and events."""
        platform, random = self.platform, self.random
        if random.random() < 0.8:
            platform.scalable_context(pre=int(random.random() < 0.9), dte=1)
            self.spaces = [platform.first_stage(pasid or 0) for pasid in PASIDS[1:]]
        else:
            self.spaces = [platform.legacy(tt=1)]
        for space in self.spaces:
            for page in PAGES:
                space.map(page, random.choice(TARGETS))
        platform.program(vtd.PQA, REQUESTS)
        for register in (vtd.PECTL, vtd.FECTL):
            platform.program(register, 0)
        address = quadword(InvalidationQueueAddress, dw=1, iqa=INVALIDATIONS >> 12)
        platform.program(vtd.IQA, address)
        platform.command(qie=1)
        return self.taken()

    def taken(self) -> list[Operation]:
        """Return and forget what the platform did."""
        done, self.made.done = self.made.done, []
        return done

    def submit(self, content: tuple[int, ...]) -> Iterator[Operation]:
        """Yield what puts a descriptor into the queue; it may have stopped at an error."""
        for number, word in enumerate((*content, 0, 0)):
            yield "store", (INVALIDATIONS + self.tail + 8 * number, 8, word)
        self.tail = (self.tail + 32) % QUEUE_SIZE
        yield "write_register", (vtd.IQT.offset, 8, self.tail)
        yield "write_register", (vtd.FSTS.offset, 4, 0x11)

    def invalidation(self) -> tuple[int, ...]:
        """Return a descriptor about devices, or a wait."""
        random = self.random
        ones = random.choice((0, 1, 3, 7, (1 << 52) - 1))
        place = {"addr": random.choice(PAGES) >> 12 | ones, "s": random.getrandbits(1)}
        sid = random.choice((DEVICE, DEVICE, DEVICE, 0x1234))
        pasid = random.choice(PASIDS) or 0
        match random.randrange(5):
            case 0:
                return descriptor(DeviceTlbInvalidation, sid=sid, **place)
            case 1:
                every = int(random.random() < 0.3)
                fields = {"sid": sid, "pasid": pasid, "g": every}
                return descriptor(PasidDeviceTlbInvalidation, **fields, **place)
            case 2:
                code, group = random.randrange(16), random.randrange(512)
                fields = {"pp": random.getrandbits(1), "rc": code, "prgi": group}
                return descriptor(PageGroupResponse, rid=sid, pasid=pasid, **fields)
            case 3:
                return descriptor(IotlbInvalidation, g=1)
            case _:
                return descriptor(InvalidationWait, fn=1, pd=int(random.random() < 0.2))

    def page_request(self) -> Operation:
        """Return a device's request for a page."""
        random = self.random
        flags = PageRequestFlag(random.choice((1, 2, 3, 16, 17, 19, random.randrange(32))))
        sid = random.choice((DEVICE, DEVICE, DEVICE, 0x1234))
        place = random.choice((*PAGES, (1 << 64) - 0x1000))
        asked = PageRequest(sid, random.choice(PASIDS), place, flags, random.randrange(512))
        return "page_request", (asked,)

    def access(self) -> Operation:
        """Return a request for a translation, or with one."""
        random = self.random
        if random.random() < 0.5:
            pasid = random.choice(PASIDS) if len(self.spaces) > 1 else None
            iova = random.choice(PAGES) + random.choice((0, 8))
            kind = random.choice((AccessKind.READ, AccessKind.WRITE, AccessKind.UNKNOWN))
            recorded = random.choice((None, None, *self.last))
            return "access", (DEVICE, pasid, iova, kind, recorded, Attribute.TRANSLATION_REQUEST)
        address = random.choice(self.used) + random.choice((0, 0x10))
        recorded = Translation(address & ~0xFFF, 0xFFF)
        return "access", (
            *(DEVICE, None, address, AccessKind.WRITE, recorded, Attribute.TRANSLATED),
        )

    def registers(self) -> Iterator[Operation]:
        """Yield what software does to page request registers, and to virtual commands."""
        random = self.random
        match random.randrange(6):
            case 0:
                value = random.choice((0, 32, 64, 0x20, QUEUE_SIZE - 32, 0x7FFE0))
                yield "write_register", (random.choice((vtd.PQH, vtd.PQT)).offset, 8, value)
            case 1:
                yield "write_register", (vtd.PRS.offset, 4, random.randrange(4))
            case 2:
                yield "write_register", (vtd.PECTL.offset, 4, random.getrandbits(1) << 31)
            case 3:
                queue = random.choice((REQUESTS, REQUESTS | 1, 0x20_0000_0000, (1 << 64) - 0x1000))
                yield "write_register", (vtd.PQA.offset, 8, queue)
            case _:
                for register in (self.group.get("VCMD"), self.group.get("VCRSP")):
                    if register is not None and random.random() < 0.7:
                        assert register.fields is not None
                        fields = {"operand": random.randrange(6), "cmd": random.randrange(4)}
                        if register.name == "VCRSP":
                            fields = {"rslt": random.randrange(8)}
                        value = quadword(register.fields, **fields)
                        name = "write_register" if register.name == "VCMD" else "adopt_read"
                        yield name, (register.offset, 8, value)
                        yield "read_register", (self.group["VCRSP"].offset, 8)

    def mode(self) -> Iterator[Operation]:
        """Yield what changes how the unit translates, and back again most often."""
        random = self.random
        ttm = 1 if len(self.spaces) > 1 else 0
        other = random.choice((0, 1, 3))
        level = quadword(GlobalCommand, te=1, qie=1)
        latch = level | quadword(GlobalCommand, srtp=1)
        for mode in (other, ttm) if random.random() < 0.7 else (other,):
            value = quadword(RootTableAddress, ttm=mode, rta=self.platform.root >> 12)
            yield "write_register", (vtd.RTADDR.offset, 8, value)
            yield "write_register", (vtd.GCMD.offset, 4, latch)
            yield self.page_request()

    def step(self) -> Iterator[Operation]:
        """Yield the next operations."""
        random = self.random
        draw = random.random()
        if draw < 0.4:
            yield self.access()
        elif draw < 0.55:
            yield self.page_request()
        elif draw < 0.75:
            yield from self.submit(self.invalidation())
        elif draw < 0.85:
            space = random.choice(self.spaces)
            if random.random() < 0.8:
                space.map(random.choice(PAGES), random.choice(TARGETS))
            else:
                space.unmap(random.choice(PAGES))
            yield from self.taken()
        elif draw < 0.96:
            yield from self.registers()
        elif draw < 0.98:
            words = tuple(random.getrandbits(64) for _ in range(4))
            slot = REQUESTS + 32 * random.randrange(128)
            message = DeviceTlbMessage(DEVICE, random.choice(PASIDS), PAGES[0], 0xFFF)
            seen = random.choice((PageRequestRecord(slot, words), message))
            yield "adopt", (seen,)
        elif draw < 0.995:
            yield from self.mode()
        else:
            yield "reset", ()
            yield from self.reopening()

    def reopening(self) -> list[Operation]:
        """Return what software does after a reset; memory is as it was."""
        self.tail = 0
        platform = self.platform
        platform.levels_of_command = 0
        platform.set_root(platform.root, 1 if len(self.spaces) > 1 else 0)
        platform.program(vtd.PQA, REQUESTS)
        address = quadword(InvalidationQueueAddress, dw=1, iqa=INVALIDATIONS >> 12)
        platform.program(vtd.IQA, address)
        platform.command(te=1)
        platform.command(qie=1)
        return self.taken()


def live(seed: int, met: Counter[str]) -> int:
    """Lead both units through a life and compare all that is seen; return its length."""
    life = Life(Random(seed))
    config = life.config()
    pair = VtdPair(config)
    operations: Any = life.opening()
    while pair.events < LIFE:
        for name, arguments in operations:
            verdict = pair.operate(name, *arguments)
            met.update(f"{finding.kind} {finding.cache}" for finding in pair.findings)
            met.update(type(one).__name__ for one in pair.emitted)
            if name == "access":
                life.last = [one.outcome for one in verdict.permitted]
        operations = life.step()
    pair.compare()
    return pair.events


def test_many_lives() -> None:
    done, seed, met = 0, 0, Counter[str]()
    while done < OPERATIONS:
        done += live(seed, met)
        seed += 1
    print(done, "operations in", seed, "lives:", dict(met))
    # A comparison of units that never get anywhere proves nothing.
    wanted = {
        f"{FindingKind.STALE_USE} device-tlb",
        f"{FindingKind.STALE_AFTER_INVALIDATION} device-tlb",
        *(kind.__name__ for kind in (FaultRecord, PageRequestRecord, PageResponse)),
        DeviceTlbMessage.__name__,
    }
    assert wanted <= set(met), wanted - set(met)
