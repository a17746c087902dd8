"""A careful driver does what it likes, in any order and at random: nothing is found in it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from random import Random

import pytest

from decoders.events import Release, Role
from tests.harness.check.driver import (
    DATA,
    Driver,
    Space,
    contexts,
    device_tlb,
    iotlb,
    page,
    pasid_domain,
    pasid_page,
    pasids,
)
from tests.harness.check.test_mistakes import broken
from tests.writers.platform import unit_config

SEEDS = 200 if os.environ.get("DMAREWIND_REQUIRE") == "all" else 8
STEPS = 250
SIDS = (0x10, 0x18, 0x21)
PAGES = (0x1000, 0x7000, 0x8000, 0x1F_F000, 0x20_0000, 0x4000_0000, 0x80_0000_0000)
"""In one table, in two, and far apart."""
ABOUT_PAGES = {
    "map-not-invalidated",
    "mapping-not-invalidated",
    "device-tlb-not-invalidated",
}


@dataclass
class Device:
    """A device that has tables of its own."""

    sid: int
    at: int
    domain: int
    space: Space
    mapped: set[int] = field(default_factory=set)
    deferred: set[int] = field(default_factory=set)


class Careful:
    """Choose what to do next; whatever it is, it is done in order and to the end."""

    def __init__(self, seed: int):
        self.random = Random(seed)
        self.mode = self.random.getrandbits(1)
        self.caching = self.random.getrandbits(1)
        self.driver = Driver(unit_config(cm=self.caching), wide=bool(self.mode))
        self.devices: list[Device] = []
        self.driver.start(self.mode)
        self.domains = list(range(2, 6))

    def live(self) -> Driver:
        """Do some things; return the driver, which knows what was seen of them."""
        steps = {
            self.attach: 3.0,
            self.detach: 0.5,
            self.map: 6.0,
            self.unmap: 3.0,
            self.use: 10.0,
            self.remap: 4.0,
            self.stray: 2.0,
            self.flush: 1.0,
            self.drop_table: 1.0,
            self.restart: 0.3,
        }
        for step in self.random.choices(list(steps), list(steps.values()), k=STEPS):
            step()
        return self.driver

    def device(self) -> Device | None:
        """Choose a device; its tables are the ones that are worked on."""
        if not self.devices:
            return None
        chosen = self.random.choice(self.devices)
        self.driver.space, self.driver.domain = chosen.space, chosen.domain
        # PASID-based or not, a device may keep translations: only legacy mode is tried with it.
        self.driver.ats = False
        return chosen

    def attach(self) -> None:
        """Give a device a domain that was used before, perhaps by another one."""
        idle = [sid for sid in SIDS if all(one.sid != sid for one in self.devices)]
        free = [did for did in self.domains if all(one.domain != did for one in self.devices)]
        if not idle:
            return
        sid, did = self.random.choice(idle), self.random.choice(free)
        if self.mode:
            stage = self.random.choice((Role.FIRST_STAGE, Role.SECOND_STAGE))
            at, entry = self.driver.pasid_entry(stage, sid, did=did)
            self.driver.put(at, entry)
            self.driver.submit(contexts(3, did=0, sid=sid), pasids(did=did), pasid_domain(did=did))
            self.driver.submit(iotlb(2, did=did))
        else:
            at = self.driver.attach(sid, did=did, tt=int(sid == SIDS[0]))
        self.devices.append(Device(sid, at, did, self.driver.space))

    def detach(self) -> None:
        """Take a device's entry back, and give its tables up."""
        device = self.device()
        if device is None:
            return
        for offset in (0, 8, 16) if self.mode else (0, 8):
            self.driver.store(device.at + offset, 0)
        if self.mode:
            self.driver.submit(pasids(did=device.domain), pasid_domain(did=device.domain))
        else:
            self.driver.submit(contexts(3, did=device.domain, sid=device.sid))
        self.driver.submit(iotlb(2, did=device.domain))
        self.devices.remove(device)
        self.driver.store(device.space.root + 0x100, self.random.getrandbits(63))
        self.driver.events.append(Release(device.space.root))

    def forget(self, device: Device, iova: int, hint: int = 0) -> None:
        """Invalidate a page wherever it may be kept."""
        content = [page(iova, did=device.domain, ih=hint)]
        if self.mode:
            content.append(pasid_page(iova, did=device.domain, ih=hint))
        self.driver.submit(*content)
        if not self.mode and device.sid == SIDS[0]:
            self.driver.submit(device_tlb(iova, sid=device.sid))

    def entry(self, device: Device, iova: int, value: int) -> None:
        self.driver.store(self.driver.entry(iova), value)

    def target(self) -> int:
        return DATA + 0x1000 * self.random.randrange(64)

    def map(self) -> None:
        """Map a page; only caching mode wants to hear of it."""
        device = self.device()
        if device is None:
            return
        free = [one for one in PAGES if one not in device.mapped | device.deferred]
        if not free:
            return
        iova = self.random.choice(free)
        self.entry(device, iova, device.space.value(self.target()))
        if self.caching or self.random.getrandbits(1):
            self.forget(device, iova)
        device.mapped.add(iova)

    def unmap(self) -> None:
        """Unmap a page, now or together with others."""
        device = self.device()
        if device is None or not device.mapped:
            return
        iova = self.random.choice(sorted(device.mapped))
        self.entry(device, iova, 0)
        device.mapped.discard(iova)
        if self.random.getrandbits(1) or (not self.mode and device.sid == SIDS[0]):
            self.forget(device, iova, hint=1)
        else:
            device.deferred.add(iova)

    def flush(self) -> None:
        """Invalidate what was put off."""
        device = self.device()
        if device is None:
            return
        content = [pasid_domain(did=device.domain)] if self.mode else []
        self.driver.submit(iotlb(2, did=device.domain), *content)
        device.deferred.clear()

    def remap(self) -> None:
        """Let a page lead elsewhere."""
        device = self.device()
        if device is None or not device.mapped:
            return
        iova = self.random.choice(sorted(device.mapped))
        self.entry(device, iova, device.space.value(self.target()))
        self.forget(device, iova, hint=self.random.getrandbits(1))

    def use(self) -> None:
        device = self.device()
        if device is not None and device.mapped:
            offset = 8 * self.random.randrange(16)
            iova = self.random.choice(sorted(device.mapped)) + offset
            self.driver.use(iova, sid=device.sid)

    def stray(self) -> None:
        """Let a device read where nothing is mapped, nor was since the last flush."""
        device = self.device()
        if device is not None:
            taken = device.mapped | device.deferred
            iova = self.random.choice([*(one for one in PAGES if one not in taken), 0x9999_0000])
            self.driver.use(iova, sid=device.sid)

    def drop_table(self) -> None:
        """Give a table up that maps nothing any more, and use its page for something else."""
        device = self.device()
        if device is None or device.deferred:
            return
        iova = self.random.choice(PAGES)
        if any(one >> 21 == iova >> 21 for one in device.mapped):
            return
        above = self.driver.entry(iova, 2)
        table = self.driver.load(above) & 0xF_FFFF_FFFF_F000
        if not table:
            return
        self.driver.store(above, 0)
        for at in [at for at in self.driver.memory if at & -0x1000 == table]:
            self.driver.memory[at] = 0
        start = iova & -(1 << 21)
        content = [pasid_page(start, did=device.domain, am=9)] if self.mode else []
        self.driver.submit(page(start, did=device.domain, am=9), *content)
        if not self.mode and device.sid == SIDS[0]:
            self.driver.submit(device_tlb(iova, sid=device.sid))
        self.driver.events.append(Release(table))
        self.driver.store(table + 8 * self.random.randrange(512), self.random.getrandbits(63))

    def restart(self) -> None:
        """Turn translation off and on again, with everything forgotten in between."""
        self.driver.command(te=0)
        self.driver.set_root(self.mode)
        self.driver.flush(self.mode)
        self.driver.command(te=1)
        for device in self.devices:
            device.deferred.clear()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_is_found(seed: int) -> None:
    driver = Careful(seed).live()
    assert broken(driver.config, driver.events) == []


class Careless(Careful):
    """Forget an invalidation of pages now and then."""

    def forget(self, device: Device, iova: int, hint: int = 0) -> None:
        if self.random.random() > 0.2:
            super().forget(device, iova, hint)


def test_a_careless_driver_is_found() -> None:
    stories = [Careless(seed).live() for seed in range(20)]
    found = {rule for one in stories for rule, _ in broken(one.config, one.events)}
    assert found >= {"map-not-invalidated", "mapping-not-invalidated"}
    assert found <= ABOUT_PAGES
