"""Build an interrupt remapping table behind a platform's unit, and send it messages."""

from __future__ import annotations

from dataclasses import dataclass

from decoders.events import Delivery, Message
from decoders.fields import Structure, build, words
from decoders.vtd import registers as vtd
from decoders.vtd.interrupt import InterruptRemapEntry, PostedInterruptEntry
from decoders.vtd.register_fields import Irta
from harness.findings import Finding
from harness.model.unit import InterruptVerdict
from tests.writers.platform import DEVICE, Platform, quadword

INDEX = 5
"""Index of the entry that tests use unless they say otherwise."""
VECTOR = 0x31
TARGET = 2
"""Local APIC that interrupts are sent to unless tests say otherwise."""
SIZE = 7
"""IRTA.S: 256 entries, one page."""


def compatible(vector: int = VECTOR, target: int = TARGET) -> tuple[int, int]:
    """Return address and data of a message in the compatibility format."""
    return 0xFEE0_0000 | target << 12, vector


def remappable(handle: int = INDEX, subhandle: int | None = None) -> tuple[int, int]:
    """Return address and data of a message in the remappable format."""
    address = 0xFEE0_0010 | (handle & 0x7FFF) << 5 | handle >> 15 << 2
    return (address, 0) if subhandle is None else (address | 1 << 3, subhandle)


def sent(vector: int = VECTOR, target: int = TARGET) -> Message:
    """Return the message of a fixed interrupt, edge triggered, to a local APIC."""
    address = 0xFEE0_0000 | (target & 0xFF) << 12 | target >> 8 << 40
    return Message(address, 0x4000 | vector)


@dataclass
class Interrupts:
    """The table of a platform; remapping is enabled when this is made."""

    platform: Platform
    extended: bool = False
    size: int = SIZE
    table: int = 0

    def __post_init__(self) -> None:
        self.table = self.table or self.platform.page()
        self.latch()
        self.platform.command(ire=1)

    def latch(self) -> None:
        """Program IRTA and let the unit take it over."""
        value = quadword(Irta, s=self.size, eime=int(self.extended), irta=self.table >> 12)
        self.platform.program(vtd.IRTA, value)
        self.platform.command(sirtp=1)

    def place(self, index: int = INDEX) -> int:
        """Return where an entry lies."""
        return self.table + 16 * index

    def write(self, entry: Structure, index: int = INDEX) -> int:
        """Write an entry, its upper quadword first; return the number of the last store."""
        low, high = words(entry)
        self.platform.store(self.place(index) + 8, high)
        self.platform.store(self.place(index), low)
        return self.platform.unit.event

    def entry(self, index: int = INDEX, **fields: int) -> int:
        """Write an entry that remaps; the default is vector VECTOR to local APIC TARGET."""
        target = TARGET if self.extended else TARGET << 8
        default = {"p": 1, "vector": VECTOR, "dst": target, "sid": DEVICE, "svt": 1}
        return self.write(build(InterruptRemapEntry, **(default | fields)), index)

    def posted(self, descriptor: int, index: int = INDEX, **fields: int) -> int:
        """Write an entry that posts vector VECTOR to a descriptor."""
        default = {"p": 1, "im": 1, "vector": VECTOR, "sid": DEVICE, "svt": 1}
        place = {"pda_low": descriptor >> 6 & 0x3FF_FFFF, "pda_high": descriptor >> 32}
        return self.write(build(PostedInterruptEntry, **(default | place | fields)), index)

    def clear(self, index: int = INDEX) -> int:
        """Clear the lower half of an entry; return the number of the store."""
        self.platform.store(self.place(index), 0)
        return self.platform.unit.event

    # -- requests -----------------------------------------------------------------------------

    def request(
        self,
        message: tuple[int, int] | None = None,
        *,
        sid: int | None = DEVICE,
        recorded: Delivery | None = None,
    ) -> InterruptVerdict:
        """Send a message (by default one for entry INDEX)."""
        self.platform.next_event()
        return self.platform.unit.interrupt(sid, *(message or remappable()), recorded)

    def send(self, message: tuple[int, int] | None = None, *, sid: int | None = DEVICE) -> Delivery:
        """Send a message and return what becomes of it."""
        return self.request(message, sid=sid).taken

    def permitted(self, message: tuple[int, int] | None = None) -> set[Delivery]:
        """Send a message and return all that may become of it."""
        return {one.outcome for one in self.request(message).permitted}

    def judge(
        self,
        recorded: Delivery,
        message: tuple[int, int] | None = None,
        *,
        sid: int | None = DEVICE,
    ) -> list[Finding]:
        """Return the findings on a message whose recorded outcome is given."""
        self.request(message, sid=sid, recorded=recorded)
        return self.platform.unit.findings()
