"""Make up what devices with TLBs and page requests do, and software about them."""

from __future__ import annotations

from random import Random
from typing import Final

from decoders.events import (
    Descriptor,
    DeviceTlbMessage,
    Event,
    FaultRecord,
    Interrupt,
    Observation,
    PageRequest,
    PageRequestFlag,
    PageRequestRecord,
    PageResponse,
    RegRead,
    RegWrite,
    StatusWrite,
)
from decoders.layout import layout
from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    DeviceTlbInvalidation,
    InvalidationWait,
    PageGroupResponse,
    PasidDeviceTlbInvalidation,
)
from decoders.vtd.registers import VIRTUAL_COMMANDS, Register
from harness.generate.vtd_spaces import PASIDS
from harness.generate.vtd_steps import Scene
from harness.generate.vtd_tables import FAR, NEAR, PAGE, STATUS, packed

_DEVICE: Final = layout(DeviceTlbInvalidation)
_PASID_DEVICE: Final = layout(PasidDeviceTlbInvalidation)
_RESPONSE: Final = layout(PageGroupResponse)
_WAIT: Final = layout(InvalidationWait)
_PLACES: Final = (*(NEAR + PAGE * n for n in range(4)), FAR, FAR + PAGE)
_SIZES: Final = (0, 0, PAGE, 3 * PAGE, 7 * PAGE, (1 << 64) - PAGE)
"""Bits that an address gets below its size, which its lowest clear bit gives."""

_FLAGS: Final = (1, 2, 3, 16, 17, 19, 21, 27)
_QUEUE_ENDS: Final = (0, 32, 64, 0x20, PAGE - 32, 0x7FFE0)
_GROUPS: Final = 512


class Devices:
    """Make up single requests and descriptors for the devices of a scene."""

    reads: tuple[tuple[int, int], ...] = ((vtd.PQT.offset, 8), (vtd.PRS.offset, 4))

    def __init__(self, scene: Scene, random: Random) -> None:
        self._scene, self._random = scene, random
        self._group: dict[str, Register] = dict(
            VIRTUAL_COMMANDS.get(scene.config.virtual_commands, {})
        )
        self._queue = 0

    def opening(self, queue: int) -> tuple[RegWrite, ...]:
        """Return the writes that set up the page request queue, and unmask events."""
        self._queue = queue
        masked = self._random.getrandbits(1) << 31
        return (
            RegWrite(vtd.PQA.offset, 8, queue),
            RegWrite(vtd.PECTL.offset, 4, masked),
            RegWrite(vtd.FECTL.offset, 4, masked),
            RegWrite(vtd.IECTL.offset, 4, masked),
        )

    def requests(self, sid: int) -> list[Event]:
        """Return a few page requests of a device, and what software then reads."""
        random = self._random
        asked: list[Event] = []
        for _ in range(random.choice((1, 1, 2, 5))):
            pasid = random.choice((None, 0, *PASIDS[:3]))
            flags = random.choice(_FLAGS) if random.random() < 0.9 else random.randrange(32)
            place = random.choice((*_PLACES, (1 << 64) - PAGE))
            group = random.randrange(_GROUPS)
            asked.append(PageRequest(sid, pasid, place, PageRequestFlag(flags), group))
        return [*asked, *(RegRead(offset, size, None) for offset, size in self.reads)]

    def registers(self) -> tuple[RegWrite, ...]:
        """Return what software writes to look after page requests, most often nothing."""
        random = self._random
        match random.randrange(8):
            case 0 | 1:
                return (RegWrite(vtd.PQH.offset, 8, random.choice(_QUEUE_ENDS)),)
            case 2 | 3:
                return (RegWrite(vtd.PRS.offset, 4, random.randrange(4)),)
            case 4:
                return (RegWrite(vtd.PECTL.offset, 4, random.getrandbits(1) << 31),)
            case 5 if random.random() < 0.3:
                queue = random.choice((self._queue | 1, 0x20_0000_0000, (1 << 64) - PAGE))
                return (RegWrite(vtd.PQA.offset, 8, queue),)
            case 6:
                end = random.choice(_QUEUE_ENDS)
                back = RegWrite(vtd.PQA.offset, 8, self._queue)
                return (back, RegWrite(vtd.PQT.offset, 8, end))
        return ()

    def descriptor(self, sid: int) -> tuple[int, ...]:
        """Return a descriptor about devices, or a wait that drains page requests."""
        random = self._random
        place = {
            "addr": random.choice(_PLACES) | random.choice(_SIZES),
            "s": random.getrandbits(1),
        }
        pasid = random.choice((0, *PASIDS[:3]))
        match random.randrange(5):
            case 0 | 1:
                return packed(_DEVICE, type=3, sid=sid, **place)
            case 2:
                every = int(random.random() < 0.3)
                return packed(_PASID_DEVICE, type=8, sid=sid, pasid=pasid, g=every, **place)
            case 3:
                fields = {"rc": random.randrange(16), "prgi": random.randrange(_GROUPS)}
                marked = random.getrandbits(1)
                return packed(_RESPONSE, type=9, rid=sid, pasid=pasid, pp=marked, **fields)
            case _:
                return packed(
                    _WAIT, type=5, sw=1, pd=1, fn=random.getrandbits(1), stdata=1,
                    staddr=STATUS + 0xE00,
                )  # fmt: skip

    def virtual_command(self) -> list[Event]:
        """Return a command and reads of its response; one that was recorded may say anything."""
        random = self._random
        command, response = self._group["VCMD"], self._group["VCRSP"]
        assert command.fields is not None and response.fields is not None
        value = packed(
            layout(command.fields), operand=random.randrange(6), cmd=random.randrange(4)
        )[0]
        read: int | None = None
        if random.random() < 0.5:
            read = packed(layout(response.fields), rslt=random.randrange(8))[0]
        return [
            RegWrite(command.offset, 8, value),
            RegRead(response.offset, 8, read),
            RegRead(response.offset, random.choice((4, 8)), None),
        ]

    def observation(self) -> Observation:
        """Return something that a unit may have been seen doing."""
        random = self._random
        words = tuple(random.getrandbits(64) for _ in range(4))
        sid = random.choice(self._scene.devices).sid
        record = words[1] & ~(0xFFFF << 0) | sid
        slot = self._queue + 32 * random.randrange(PAGE // 32)
        pasid = random.choice((None, *PASIDS[:2]))
        found: tuple[Observation, ...] = (
            FaultRecord(0, words[0] & -PAGE, record & ~(1 << 63)),
            StatusWrite(STATUS + 8 * random.randrange(64), words[0] & 0xFFFF_FFFF),
            Interrupt(0xFEE0_0000, words[0] & 0xFFFF),
            Descriptor(packed(_WAIT, type=5, sw=1, stdata=2, staddr=STATUS)),
            Descriptor((random.randrange(1, 10) | random.randrange(4) << 4, words[1])),
            PageRequestRecord(slot, words),
            PageResponse(sid, pasid, random.randrange(_GROUPS), random.choice((0, 1, 15))),
            DeviceTlbMessage(sid, pasid, NEAR, PAGE - 1, random.random() < 0.2),
        )
        return random.choice(found)
