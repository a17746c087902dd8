"""Give a platform's unit a page request queue, and let devices ask for pages."""

from __future__ import annotations

from dataclasses import dataclass

from decoders.events import (
    Descriptor,
    DeviceTlbMessage,
    Observation,
    PageRequest,
    PageRequestFlag,
    PageRequestRecord,
    PageResponse,
)
from decoders.fields import build, words
from decoders.layout import layout
from decoders.vtd import pagerequest
from decoders.vtd import registers as vtd
from decoders.vtd.register_fields import Pqa
from tests.writers.platform import DEVICE, PAGE, Platform, quadword

PASID = 5
ADDRESS = 0x7F00_0000_1000
GROUP = 9
READ, WRITE, LAST = PageRequestFlag.READ, PageRequestFlag.WRITE, PageRequestFlag.LAST
ALONE = READ | LAST
"""A request that is a group of its own."""
SIZE = layout(pagerequest.PageRequest).size


def messages(platform: Platform) -> list[Observation]:
    """Return what was seen since the last call but for descriptors."""
    return [seen for seen in platform.observed() if not isinstance(seen, Descriptor)]


@dataclass
class Pages:
    """The page request queue of a platform whose device may ask (PRE)."""

    platform: Platform
    pqs: int = 0
    queue: int = 0

    def __post_init__(self) -> None:
        self.platform.scalable_context(pre=1)
        self.queue = self.platform.page(1 << self.pqs)
        value = quadword(Pqa, pqs=self.pqs, pqa=self.queue >> 12)
        self.platform.program(vtd.PQA, value)
        self.platform.observed()

    @property
    def size(self) -> int:
        """Bytes of the queue."""
        return PAGE << self.pqs

    def ask(
        self,
        flags: PageRequestFlag = ALONE,
        *,
        sid: int = DEVICE,
        pasid: int | None = PASID,
        address: int = ADDRESS,
        group: int = GROUP,
    ) -> list[Observation]:
        """Ask for a page; return what was seen of it."""
        self.platform.next_event()
        self.platform.unit.page_request(PageRequest(sid, pasid, address, flags, group))
        return self.platform.observed()

    def record(self, slot: int = 0, **fields: int) -> PageRequestRecord:
        """Return the record of a request by default, in a slot of the queue."""
        default = {
            "type": pagerequest.PAGE_REQUEST_TYPE,
            "pp": 1,
            "rid": DEVICE,
            "pasid": PASID,
            "rd": 1,
            "lpig": 1,
            "prgi": GROUP,
            "addr": ADDRESS >> 12,
        }
        content = build(pagerequest.PageRequest, **(default | fields))
        return PageRequestRecord(self.queue + SIZE * slot, words(content))

    def fill(self) -> None:
        """Ask until the queue is full."""
        for _ in range(self.size // SIZE - 1):
            self.ask()

    def read_up_to(self, slot: int) -> None:
        """Say that software has read the requests before a slot (PQH)."""
        self.platform.program(vtd.PQH, SIZE * slot)

    def clear(self, **status: int) -> None:
        """Clear bits of PRS."""
        self.platform.program(vtd.PRS, quadword(vtd.Prs, **status))

    def status(self) -> tuple[int, int]:
        """Return PPR and PRO."""
        return self.platform.field(vtd.PRS, "ppr"), self.platform.field(vtd.PRS, "pro")

    @staticmethod
    def response(code: int, *, pasid: int | None = PASID, group: int = GROUP) -> PageResponse:
        """Return the answer to a group of the device's."""
        return PageResponse(DEVICE, pasid, group, code)


def forgotten(
    address: int, size: int = PAGE, *, pasid: int | None = None, every_pasid: bool = False
) -> DeviceTlbMessage:
    """Return the message that makes the device forget a range."""
    return DeviceTlbMessage(DEVICE, pasid, address, size - 1, every_pasid)
