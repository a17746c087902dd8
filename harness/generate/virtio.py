"""Make up what a driver could say to a virtio-iommu: mostly sensible, at the edges, or wrong.

A sequence is a list of steps; each is a stimulus and the DMA that follows it. It depends on the
random generator and the scene only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from decoders.bytewise import packed
from decoders.events import AccessKind, DeviceReset, Features, RegWrite, Request
from decoders.virtio_iommu.config import BYPASS_OFFSET
from decoders.virtio_iommu.constants import AttachFlag, MapFlag, RequestType
from decoders.virtio_iommu.requests import HEAD_SIZE, TAIL_SIZE
from decoders.virtio_iommu.structures import Attach, Detach, Map, Probe, Unmap

Stimulus = Request | RegWrite | DeviceReset | Features

PAGE: Final = 4096
_LAST: Final = (1 << 64) - 1
_ATTACH, _DETACH, _MAP, _UNMAP, _PROBE = map(packed, (Attach, Detach, Map, Unmap, Probe))

_DOMAINS: Final = (0, 1, 2, 0xFFFF_FFFF)
_FAR_BASES: Final = (0x4_0000_0000, 0xFFFF_F000_0000, 1 << 63, _LAST - 0xFFFF)
"""Where DMA of devices with 64 address bits goes; nothing answers there without translation."""

_NEAR_BASES: Final = (0x8000_0000, 0x8FFF_0000)
"""The same for devices with 32."""

_INTERRUPTS: Final = 0xFEE0_0000
_NOWHERE: Final = 0x9000_0000
"""Where a mapping leads to nothing."""


@dataclass(frozen=True, slots=True)
class Device:
    """Describe a device that can do DMA: the id it shows, what it can reach, and how."""

    endpoint: int
    width: int
    kinds: tuple[AccessKind, ...]
    write_alignment: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Describe a machine: its DMA devices, other endpoints, the pages that DMA may hit."""

    devices: Sequence[Device]
    endpoints: Sequence[int]
    pool_start: int
    pool_pages: int
    probe_size: int


@dataclass(frozen=True, slots=True)
class DmaChoice:
    """Ask the device with this index for DMA."""

    device: int
    kind: AccessKind
    iova: int


@dataclass(frozen=True, slots=True)
class Step:
    """Hold a stimulus and the DMA behind it; what is made up always has both."""

    stimulus: Stimulus | None
    dma: DmaChoice | None


class Generator:
    """Make up sequences; unaligned allows mappings that are no whole pages."""

    def __init__(self, scene: Scene, random: Random, unaligned: bool = True) -> None:
        self._scene, self._random, self._unaligned = scene, random, unaligned
        self._ranges: list[tuple[int, int]] = []
        kinds: tuple[tuple[Callable[[], Stimulus], int], ...] = (
            (self._attach, 20),
            (self._detach, 7),
            (self._map, 38),
            (self._unmap, 18),
            (self._probe, 3),
            (self._strange, 4),
            (self._bypass, 4),
            (DeviceReset, 1),
        )
        self._kinds = [kind for kind, _ in kinds]
        self._weights = [weight for _, weight in kinds]

    def sequence(self, steps: int) -> list[Step]:
        """Return a sequence that begins in a machine that was just reset."""
        self._ranges.clear()
        # Most sequences are about endpoints without bypass.
        first: Stimulus = self._bypass() if self._random.random() < 0.8 else self._attach()
        made = [Step(first, self._dma())]
        while len(made) < steps:
            (kind,) = self._random.choices(self._kinds, self._weights)
            made.append(Step(kind(), self._dma()))
        return made

    def _domain(self) -> int:
        return self._random.choices(_DOMAINS, (4, 8, 2, 1))[0]

    def _endpoint(self) -> int:
        draw = self._random.random()
        if draw < 0.9:
            return self._random.choice(self._scene.devices).endpoint
        if draw < 0.94:
            return self._random.choice(self._scene.endpoints)
        if draw < 0.97:
            # Requester ids have 16 bits, endpoint ids 32.
            return self._random.choice(self._scene.devices).endpoint | 0x1_0000
        return self._random.choice((0x7F8, 0xFFFF, 0xFFFF_FFFF))

    def _octets(self, size: int) -> bytes:
        """Return reserved bytes: zeros, seldom not."""
        return bytes(size) if self._random.random() < 0.95 else b"\x01" + bytes(size - 1)

    def _request(self, data: bytes, room: int = TAIL_SIZE) -> Request:
        return Request(data, room, None)

    def _attach(self) -> Request:
        flags = 0
        draw = self._random.random()
        if draw < 0.15:
            flags = AttachFlag.BYPASS
        elif draw < 0.18:
            flags = self._random.choice((2, 3, 1 << 31))
        return self._request(
            _ATTACH.pack(
                RequestType.ATTACH,
                self._octets(3),
                self._domain(),
                self._endpoint(),
                flags,
                self._octets(4),
            )
        )

    def _detach(self) -> Request:
        return self._request(
            _DETACH.pack(
                RequestType.DETACH,
                self._octets(3),
                self._domain(),
                self._endpoint(),
                self._octets(8),
            )
        )

    def _place(self) -> int:
        """Return an address for a mapping."""
        random = self._random
        draw = random.random()
        if draw < 0.4 and self._ranges:
            # Beside, or over, an earlier one.
            start, end = random.choice(self._ranges)
            near = random.choice((start, end + 1, start - PAGE, (start + end) // 2 & -PAGE))
            return near & _LAST
        if draw < 0.5:
            return self._scene.pool_start + PAGE * random.randrange(self._scene.pool_pages)
        if draw < 0.52:
            return _INTERRUPTS + PAGE * random.randrange(-1, 2)
        bases = _NEAR_BASES if random.random() < 0.6 else _FAR_BASES
        return random.choice(bases) + PAGE * random.randrange(16)

    def _map(self) -> Request:
        random = self._random
        start = self._place()
        pages = random.choice((1, 1, 1, 2, 3, 4, 16))
        end = min(start + pages * PAGE - 1, _LAST)
        target = self._scene.pool_start + PAGE * random.randrange(self._scene.pool_pages)
        if random.random() < 0.02:
            start, end = random.choice(((0, _LAST), (0, (1 << 32) - 1), (1 << 32, _LAST)))
            # The highest addresses then lead into the pool, too.
            target = self._scene.pool_start + 0x1_0000
        elif random.random() < 0.07:
            target = random.choice((_NOWHERE, _LAST - 0xFFFF))
        if self._unaligned and random.random() < 0.06:
            offset = random.choice((1, 0x40, 0x800, 0xFFF))
            match random.randrange(3):
                case 0:
                    target += offset
                case 1:
                    start += offset
                case 2:
                    end -= offset
        if start > end or end > _LAST or target > _LAST:
            start, end, target = 0, PAGE - 1, self._scene.pool_start
        both = MapFlag.READ | MapFlag.WRITE
        flags = random.choices(
            (both, MapFlag.READ, MapFlag.WRITE, 0, both | MapFlag.MMIO, 8, 1 << 31),
            (70, 8, 8, 2, 6, 1, 1),
        )[0]
        self._ranges.append((start, end))
        del self._ranges[:-12]
        return self._request(
            _MAP.pack(RequestType.MAP, self._octets(3), self._domain(), start, end, target, flags)
        )

    def _unmap(self) -> Request:
        random = self._random
        start, end = random.choice(self._ranges) if self._ranges else (0, PAGE - 1)
        draw = random.random()
        if draw < 0.1:
            start, end = 0, _LAST
        elif draw < 0.2:  # a part
            end = (start + end) // 2
        elif draw < 0.3:  # more on one side
            end = min(end + PAGE, _LAST)
        elif draw < 0.4:
            start = max(start - PAGE, 0)
        elif draw < 0.45:  # one range to another
            other = random.choice(self._ranges or [(start, end)])
            start, end = min(start, other[0]), max(end, other[1])
        return self._request(
            _UNMAP.pack(
                RequestType.UNMAP, self._octets(3), self._domain(), start, end, self._octets(4)
            )
        )

    def _probe(self) -> Request:
        room = self._scene.probe_size + TAIL_SIZE
        if self._random.random() < 0.2:
            room = self._random.choice((TAIL_SIZE, 40, room - 1, room + 8))
        return self._request(
            _PROBE.pack(RequestType.PROBE, self._octets(3), self._endpoint(), self._octets(64)),
            room,
        )

    def _strange(self) -> Request:
        """Return a request of a type that is not known, or of another length."""
        random = self._random
        if random.random() < 0.03:  # no whole head, or no room for a tail
            cut = random.randrange(HEAD_SIZE)
            return random.choice(
                (self._request(bytes(cut)), self._request(self._attach().data, cut))
            )
        request = random.choice((self._attach, self._detach, self._map, self._unmap, self._probe))()
        match random.randrange(3):
            case 0:
                kind = random.choice((0, 6, 0x80, 0xFF))
                return self._request(bytes((kind,)) + request.data[1:], request.room)
            case 1:
                return self._request(
                    request.data[: random.randrange(4, len(request.data))], request.room
                )
            case _:
                return self._request(request.data + bytes(random.choice((1, 4))), request.room + 4)

    def _bypass(self) -> RegWrite:
        value = self._random.choices((0, 1, 2, 0xFF), (300, 100, 2, 1))[0]
        return RegWrite(BYPASS_OFFSET, 1, value)

    def _dma(self) -> DmaChoice:
        random = self._random
        index = random.randrange(len(self._scene.devices))
        device = self._scene.devices[index]
        kind = random.choice(device.kinds)
        reachable = [r for r in self._ranges[-4:] if r[0] >> device.width == 0]
        draw = random.random()
        if draw < 0.8 and reachable:
            start, end = random.choice(reachable)
            iova = random.choice((start, start, end - 63, (start + end) // 2, start - 64, end + 1))
            if kind is AccessKind.READ:
                iova += random.choice((0, 0, 0, 60, 63, -1))
        elif draw < 0.95:
            iova = self._scene.pool_start + PAGE * random.randrange(self._scene.pool_pages)
        else:
            iova = random.choice(_NEAR_BASES) + PAGE * random.randrange(16)
        iova &= (1 << device.width) - 1
        iova = min(iova, (1 << device.width) - 64)
        if kind is AccessKind.WRITE:
            iova -= iova % device.write_alignment
        return DmaChoice(index, kind, self._safe(iova))

    def _safe(self, iova: int) -> int:
        """Keep away from where DMA that bypasses would do harm: the queues, other devices."""
        scene = self._scene
        if iova < scene.pool_start or _NOWHERE <= iova < 1 << 32:
            pool_end = scene.pool_start + PAGE * scene.pool_pages
            return pool_end - PAGE + iova % (PAGE - 64) // 64 * 64
        return iova
