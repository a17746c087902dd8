"""Random lives of a virtio-iommu, for comparing two implementations step by step.

A life is made from a random.Random: the same one gives the same life. There are few addresses,
endpoints and domains, so that requests meet what earlier ones left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from decoders.events import AccessKind, Fault, Outcome, Translation
from decoders.virtio_iommu.config import BYPASS_OFFSET
from decoders.virtio_iommu.constants import Feature, MapFlag
from harness.model.virtio.config import DEFAULT_FEATURES, VirtioConfig
from harness.model.virtio.dialect import DIALECTS
from tests.writers import virtio_iommu as write
from tests.writers.virtio_iommu import TOP

Operation = tuple[str, tuple[Any, ...]]

ENDPOINTS = (0x18, 0x19, 0x20, 0x110, 0x1_0018, 0xFFFF_FFFF)
DOMAINS = (0, 1, 1, 1, 2, 0xFFFF_FFFF)
STATUSES = (0, 0, 0, 0, 0, 1, 2, 3, 4, 4, 5, 6, 8, 9)


class Life:
    """Make up what happens to a unit."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.config = self._config()
        self.unit_size = random.choice((1, 0x1000, 0x1000, 0x1000, 1 << 59))
        self.mapped: list[tuple[int, int]] = []
        kinds: tuple[tuple[Callable[[], Operation], int], ...] = (
            (self._attach, 10),
            (self._detach, 4),
            (self._map, 24),
            (self._unmap, 10),
            (self._probe, 4),
            (self._strange, 3),
            (self._access, 40),
            (self._rare, 6),
        )
        self._kinds = [kind for kind, _ in kinds]
        self._weights = [weight for _, weight in kinds]

    def opening(self) -> list[Operation]:
        """Return what leads to a state in which something happens."""
        random = self.random
        declared: list[Operation] = [self._declare() for _ in range(random.randrange(3))]
        attached = (write.attach(1, random.choice(ENDPOINTS[:3])) for _ in range(2))
        return [*declared, *(("request", (data, 4, None)) for data in attached)]

    def step(self) -> Operation:
        """Return something that happens."""
        (kind,) = self.random.choices(self._kinds, self._weights)
        return kind()

    def recorded(self, operation: Operation, permitted: tuple[Outcome, ...]) -> Operation:
        """Return an access with an outcome that may have been recorded for it."""
        name, (endpoint, iova, kind, _) = operation
        return name, (endpoint, iova, kind, self._outcome(iova, permitted))

    # --- where it begins -----------------------------------------------------------------------

    def _config(self) -> VirtioConfig:
        random = self.random
        dialect = random.choice(list(DIALECTS.values()))
        if random.randrange(4) == 0:
            # Mixed ones as well: a difference may hide behind a switch that both dialects set.
            other = random.choice(list(DIALECTS.values()))
            names = [name for name in dialect.__dataclass_fields__ if random.randrange(2)]
            dialect = replace(dialect, **{name: getattr(other, name) for name in names})
        space = write.config(
            random.choice((0, 0, 1, 2, 3)),
            page_size_mask=random.choice((TOP - 0xFFF, TOP - 0xFFF, 1, 0, 1 << 63, 0x1_0001_0000)),
            input_range=random.choice(((0, TOP), (0, TOP), (0x2000, 0x8FFF))),
            domain_range=random.choice(((0, 0xFFFF_FFFF), (1, 2))),
            probe_size=random.choice((512, 512, 512, 0, 3, 24, 47, 0xFFFC, 0xFFFD, 0xFFFF_FFFF)),
        )
        return VirtioConfig(
            random.choice((DEFAULT_FEATURES, DEFAULT_FEATURES, 0, random.randrange(128))),
            random.choice((space, space, space, space[:36], space[:33], b"", space + b"more")),
            random.randrange(4) != 0,
            dialect,
            random.choice((1 << 20, 1 << 20, 24)),
        )

    # --- what happens --------------------------------------------------------------------------

    def _address(self) -> int:
        random = self.random
        place = self.unit_size * random.choice((0, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 15, 31))
        if random.randrange(12) == 0:
            place += random.choice((1, -1, self.unit_size // 2))
        return place & TOP if random.randrange(24) else TOP

    def _range(self) -> tuple[int, int]:
        random = self.random
        if random.randrange(24) == 0:
            return 0, TOP
        start, behind = self._address(), self._address()
        if start > behind and random.randrange(12):
            start, behind = behind, start
        return start, behind if behind == TOP else (behind - 1) & TOP

    def _octets(self) -> int:
        return 0 if self.random.randrange(16) else 0x100

    def _request(self, data: bytes, room: int = write.TAIL) -> Operation:
        random = self.random
        answer = None if random.randrange(2) else write.tail(random.choice(STATUSES))
        if room != write.TAIL and answer is not None and random.randrange(4):
            answer = (self._properties() + answer)[-min(room, 1 << 16) :]
        if answer is not None and random.randrange(24) == 0:
            answer = random.choice((b"", answer[:-1], answer[:-1] + b"\1", b"\0" + answer))
        return "request", (data, room, answer)

    def _properties(self) -> bytes:
        random = self.random
        size = int.from_bytes(self.config.config[32:36], "little") & 0xFFFF
        made = b"".join(
            random.choice((write.resv_mem(random.randrange(3), *self._range()), b"\2\0\2\0ab"))
            for _ in range(random.randrange(4))
        )
        if random.randrange(8) == 0 and made:
            at = random.randrange(len(made))
            made = made[:at] + random.randbytes(1) + made[at + 1 :]
        return made.ljust(size, b"\0")[:size]

    def _attach(self) -> Operation:
        random = self.random
        flags = random.choice((0, 0, 0, 0, 0, 1, 1, 2, 1 << 31))
        endpoint, domain = random.choice(ENDPOINTS), random.choice(DOMAINS)
        return self._request(write.attach(domain, endpoint, flags, self._octets()))

    def _detach(self) -> Operation:
        random = self.random
        endpoint, domain = random.choice(ENDPOINTS), random.choice(DOMAINS)
        return self._request(write.detach(domain, endpoint, self._octets()))

    def _map(self) -> Operation:
        random = self.random
        start, end = self._range()
        physical = self._address() ^ random.choice((0, 0, 0x10_0000, 1 << 60, 3))
        flags = random.choice((3, 3, 3, 3, 1, 2, 0, MapFlag.MMIO | 3, 8))
        self.mapped.append((start, physical))
        del self.mapped[:-16]
        return self._request(write.map_(random.choice(DOMAINS), start, end, physical, flags))

    def _unmap(self) -> Operation:
        data = write.unmap(self.random.choice(DOMAINS), *self._range(), self._octets())
        return self._request(data)

    def _probe(self) -> Operation:
        random = self.random
        size = int.from_bytes(self.config.config[32:36], "little") + write.TAIL
        room = random.choice((size, size, size, size, size + 4, size - 1, write.TAIL, 40))
        return self._request(write.probe(random.choice(ENDPOINTS), self._octets()), room)

    def _strange(self) -> Operation:
        random = self.random
        made = random.choice((self._attach, self._detach, self._map, self._unmap, self._probe))
        name, (data, room, answer) = made()
        match random.randrange(4):
            case 0:
                data = bytes((random.choice((0, 6, 255)),)) + data[1:]
            case 1:
                data = data[: random.randrange(len(data))]
            case 2:
                data += bytes(random.randrange(1, 9))
            case _:
                room = random.choice((0, 3, 4, 5, 100))
        return name, (data, room, answer)

    def _access(self) -> Operation:
        random = self.random
        iova = self._address() + random.choice((0, 0, 0, 1, 8, -1)) & TOP
        return "access", (random.choice(ENDPOINTS), iova, random.choice(list(AccessKind)), None)

    def _outcome(self, iova: int, permitted: tuple[Outcome, ...]) -> Outcome | None:
        random = self.random
        match random.randrange(8):
            case 0:
                return Fault(random.randrange(4))
            case 1 | 2 if self.mapped:
                start, physical = random.choice(self.mapped)
                mask = random.choice((0, 0, 0xFFF))
                return Translation(iova - start + physical & TOP & ~mask, mask)
            case 3:
                return None
            case _:
                outcome = random.choice(permitted)
                if isinstance(outcome, Translation) and random.randrange(2):
                    offset = iova & outcome.mask
                    return Translation(outcome.address | offset & ~7, outcome.mask & 7)
                return outcome

    def _declare(self) -> Operation:
        random = self.random
        count = random.choice((0, 0, 1, 2, 3))
        regions = tuple((random.randrange(3), *sorted(self._range())) for _ in range(count))
        return "endpoint", (random.choice(ENDPOINTS), regions)

    def _rare(self) -> Operation:
        random = self.random
        match random.randrange(16):
            case 0 | 1 | 2:
                return self._declare()
            case 3 | 4 | 5 | 6:
                # A space that ends before the bypass byte has nothing to write.
                size = random.choice((1, 1, 2, 4, 8))
                offset = random.choice((*[BYPASS_OFFSET] * 4, 29, 32, 33, 37))
                return "write_register", (offset, size, random.choice((0, 1, 2, 1 << 24, 1 << 32)))
            case 7 | 8 | 9:
                offset = random.choice((0, 8, 32, 35, 36, 38, 40, 1 << 31))
                return "read_register", (offset, random.choice((1, 2, 4, 8)))
            case 10 | 11:
                mask = random.choice((0, 0x7F, int(Feature.BYPASS), random.randrange(128)))
                return "features", (self.config.features, mask)
            case 12 | 13:
                space = bytearray(self.config.config)
                if len(space) > BYPASS_OFFSET:
                    space[BYPASS_OFFSET] = random.randrange(3)
                return "config_space", (
                    bytes(space[: random.choice((len(space), len(space), 36, 0))]),
                )
            case 14:
                return "device_reset", ()
            case _:
                return "reset", ()
