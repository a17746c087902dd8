"""When a request is refused, and with which status, as data (virtio 1.4, 5.13.6).

The specification gives no order among conditions that hold together, so any of their statuses may
come back; a unit whose order is known answers with the first (`Dialect.first_decides`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from decoders.virtio_iommu.constants import Status

UNWRITTEN = 0xFF
"""Stands for no status at all: the device returns the buffer with a used length of 0."""


class Condition(IntEnum):
    """Number what can be wrong with a request.

    It is looked for in the order of the numbers, but for PROBE_ROOM, which precedes SHORT_BODY.
    """

    NO_HEAD_OR_TAIL = 0
    UNKNOWN_TYPE = 1
    SHORT_BODY = 2
    ATTACH_RESERVED = 3
    ATTACH_FLAGS = 4
    ATTACH_ENDPOINT = 5
    ATTACH_DOMAIN_RANGE = 6
    ATTACH_MOVED = 7
    ATTACH_BYPASS = 8
    ATTACH_SHARED = 9
    DETACH_ENDPOINT = 10
    DETACH_NOT_ATTACHED = 11
    MAP_FLAGS = 12
    MAP_DOMAIN = 13
    MAP_BYPASS = 14
    MAP_ORDER = 15
    MAP_OVERLAP = 16
    MAP_MAY_OVERLAP = 17
    MAP_ALIGNMENT = 18
    MAP_INPUT_RANGE = 19
    MAP_RESERVED_REGION = 20
    UNMAP_RESERVED = 21
    UNMAP_DOMAIN = 22
    UNMAP_BYPASS = 23
    UNMAP_ORDER = 24
    UNMAP_SPLIT = 25
    UNMAP_MAY_SPLIT = 26
    PROBE_ROOM = 27
    PROBE_NOT_OFFERED = 28
    PROBE_ENDPOINT = 29
    PROBE_SPACE = 30


@dataclass(frozen=True, slots=True)
class Rule:
    """Give the status of a condition; one that is not binding allows success as well."""

    status: int
    binding: bool = True
    others: frozenset[int] = frozenset()
    """Statuses that are permitted as well, where the text names none."""


REFUSALS = frozenset(status for status in Status if status != Status.OK)
"""What rejects a request: the specification says that it fails, and not with which status."""


RULES: dict[Condition, Rule] = {
    Condition.NO_HEAD_OR_TAIL: Rule(UNWRITTEN),
    Condition.UNKNOWN_TYPE: Rule(UNWRITTEN),  # SHOULD
    Condition.SHORT_BODY: Rule(UNWRITTEN),
    Condition.ATTACH_RESERVED: Rule(Status.INVAL),  # MUST
    Condition.ATTACH_FLAGS: Rule(Status.INVAL),  # MUST
    Condition.ATTACH_ENDPOINT: Rule(Status.NOENT),  # MUST
    Condition.ATTACH_DOMAIN_RANGE: Rule(Status.RANGE, binding=False),  # only the driver is bound
    Condition.ATTACH_MOVED: Rule(Status.UNSUPP, binding=False),  # where it cannot detach by itself
    Condition.ATTACH_BYPASS: Rule(Status.INVAL),  # SHOULD
    Condition.ATTACH_SHARED: Rule(Status.UNSUPP, binding=False),  # where it cannot share a domain
    Condition.DETACH_ENDPOINT: Rule(Status.NOENT),  # MUST
    Condition.DETACH_NOT_ATTACHED: Rule(Status.INVAL, binding=False),  # MAY
    Condition.MAP_FLAGS: Rule(Status.INVAL),  # MUST
    Condition.MAP_DOMAIN: Rule(Status.NOENT),  # SHOULD
    Condition.MAP_BYPASS: Rule(Status.INVAL),  # SHOULD
    Condition.MAP_ORDER: Rule(Status.INVAL),  # only the driver is bound; nothing could be mapped
    Condition.MAP_OVERLAP: Rule(Status.INVAL),  # SHOULD
    Condition.MAP_MAY_OVERLAP: Rule(Status.INVAL, binding=False),
    Condition.MAP_ALIGNMENT: Rule(Status.RANGE),  # SHOULD
    Condition.MAP_INPUT_RANGE: Rule(Status.RANGE, others=REFUSALS),  # "fails" (5.13.6)
    Condition.MAP_RESERVED_REGION: Rule(Status.INVAL, others=REFUSALS),  # SHOULD (5.13.6.8.1)
    Condition.UNMAP_RESERVED: Rule(Status.INVAL, binding=False),  # MAY
    Condition.UNMAP_DOMAIN: Rule(Status.NOENT),  # SHOULD
    Condition.UNMAP_BYPASS: Rule(Status.INVAL),  # SHOULD
    Condition.UNMAP_ORDER: Rule(Status.INVAL, binding=False),  # only the driver is bound
    Condition.UNMAP_SPLIT: Rule(Status.RANGE),  # SHOULD
    Condition.UNMAP_MAY_SPLIT: Rule(Status.RANGE, binding=False),
    Condition.PROBE_ROOM: Rule(Status.INVAL),  # SHOULD
    Condition.PROBE_NOT_OFFERED: Rule(UNWRITTEN),  # SHOULD
    Condition.PROBE_ENDPOINT: Rule(Status.NOENT),  # SHOULD
    Condition.PROBE_SPACE: Rule(Status.INVAL),  # SHOULD
}

DOUBTFUL = frozenset({Condition.MAP_MAY_OVERLAP, Condition.UNMAP_MAY_SPLIT})
"""Conditions about mappings that may be gone (`Domain.doubtful`): nobody knows if they hold."""
