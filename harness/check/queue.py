"""Rules about the invalidation queue: where its tail goes, what descriptors say."""

from __future__ import annotations

from collections.abc import Iterator

from decoders.layout import layout
from decoders.vtd.descriptors import DESCRIPTORS, WIDE_ONLY, descriptor_type
from harness.check.commands import page_selection_fault
from harness.check.coverage import CONTEXT, INTERRUPT, IOTLB, PASID_CACHE, PASID_IOTLB, WAIT
from harness.check.rules import Rule
from harness.model.config import UnitConfig

TAIL_OUTSIDE = Rule(
    "tail-outside-ring",
    "VT-d 11.4 (IQT; IQERCD: IQEI 1)",
    "The tail must lie inside the ring, whose size IQA.QS gives. The unit reports a queue error "
    "and takes nothing more.",
)
TAIL_MISALIGNED = Rule(
    "tail-misaligned",
    "VT-d 11.4 (IQT; IQERCD: IQEI 6)",
    "The tail counts whole descriptors: 16 bytes, or 32 where IQA.DW is 1. The unit reports a "
    "queue error and takes nothing more.",
)
TAIL_OVERTAKES = Rule(
    "tail-overtakes-head",
    "VT-d 6.5.2",
    "Descriptors between head and tail belong to the unit. A tail that comes to or passes the head "
    "gives up descriptors that were never taken: software has lost count of the free slots.",
)
TYPE = Rule(
    "descriptor-type",
    "VT-d 6.5.2 (IQEI 3)",
    "The type of a descriptor is unknown, or one that only a queue of 256-bit descriptors has. The "
    "queue stops at it.",
)
RESERVED = Rule(
    "descriptor-reserved",
    "VT-d 6.5.2 (IQEI 4)",
    "Reserved fields of a descriptor must be zero. The queue stops at it, and what was to be "
    "invalidated stays.",
)
GRANULARITY = Rule(
    "descriptor-granularity",
    "VT-d 6.5.2.1 to 6.5.2.4",
    "The granularity of an invalidation is one of the reserved codes. The queue stops at it.",
)
PAGES = Rule(
    "page-invalidation",
    "VT-d 6.5.2.3, 6.5.2.4; CAP.PSI, CAP.MAMV",
    "A page-selective invalidation needs CAP.PSI (where it is not by PASID), an address mask up to "
    "CAP.MAMV, and an address aligned to the 2^AM pages it names. Otherwise less is invalidated "
    "than was meant, or nothing; software falls back to the whole domain.",
)
DOMAIN = Rule(
    "descriptor-domain",
    "VT-d 11.4 (CAP.ND)",
    "A domain id must be below the number that CAP.ND gives: no entry can have this one, so that "
    "the invalidation drops nothing.",
)
UNSUPPORTED = Rule(
    "descriptor-unsupported",
    "VT-d 11.4 (ECAP.DT, ECAP.IR, ECAP.MHMV)",
    "The descriptor asks for what the unit does not have: device-TLB invalidation needs ECAP.DT, "
    "the interrupt entry cache ECAP.IR, and its mask is at most ECAP.MHMV.",
)
UNREADABLE = Rule(
    "descriptor-unreadable",
    "VT-d 6.5.2, 11.4 (IQERCD: IQEI 2)",
    "The queue lies where there is no memory. The unit reports a queue error and takes nothing.",
)
RULES = (
    TAIL_OUTSIDE, TAIL_MISALIGNED, TAIL_OVERTAKES, TYPE, RESERVED, GRANULARITY, PAGES, DOMAIN,
    UNSUPPORTED, UNREADABLE,
)  # fmt: skip

GRANULARITIES = {
    1: (CONTEXT, (1, 2, 3)),
    2: (IOTLB, (1, 2, 3)),
    6: (PASID_IOTLB, (2, 3)),
    7: (PASID_CACHE, (0, 1, 3)),
}
"""By type: the layout, and the granularities that are not reserved."""
WITH_DOMAIN = {(1, 2), (2, 2), (2, 3), (6, 2), (6, 3), (7, 0), (7, 1)}
"""Types and granularities that look at the domain id."""
DEVICE_TLB = (3, 8)

Found = Iterator[tuple[Rule, str]]


def domains(config: UnitConfig) -> int:
    """Return how many domain ids CAP.ND allows."""
    return min(1 << 4 + 2 * config.cap("nd"), 1 << 16)


def tail_faults(tail: int, old: int, head: int, size: int, step: int) -> Found:
    """Yield what is wrong with a new tail in a ring of size bytes."""
    if tail >= size:
        yield TAIL_OUTSIDE, f"IQT is {tail:#x}, the ring has {size:#x} bytes."
    elif tail % step:
        yield TAIL_MISALIGNED, f"IQT is {tail:#x}, a descriptor has {step} bytes."
    elif old < size and (old - head) % size + (tail - old) % size >= size:
        yield TAIL_OVERTAKES, f"IQT goes from {old:#x} to {tail:#x}; IQH is {head:#x}."


def descriptor_faults(words: tuple[int, ...], config: UnitConfig) -> Found:
    """Yield what is wrong with a descriptor, the gravest first; words are all that it has."""
    kind = descriptor_type(words[0])
    shape = DESCRIPTORS.get(kind)
    if shape is None:
        yield TYPE, f"Type {kind} is not known."
        return
    name = shape.__name__
    if kind in WIDE_ONLY and len(words) == 2:
        yield TYPE, f"{name} needs a queue of 256-bit descriptors."
        return
    reserved = [*layout(shape).reserved, *[(1 << 64) - 1] * (len(words) - 2)]
    if kind == 5 and not config.ecap("pds"):
        reserved[0] |= WAIT["pd"].mask
    for index, (word, mask) in enumerate(zip(words, reserved, strict=True)):
        if word & mask:
            yield RESERVED, f"{name}: bits {word & mask:#x} of quadword {index} are set."
    yield from _granularity_faults(kind, name, words, config)
    if kind in DEVICE_TLB and not config.ecap("dt"):
        yield UNSUPPORTED, f"{name}: ECAP.DT is 0."
    if kind == 4 and not config.ecap("ir"):
        yield UNSUPPORTED, f"{name}: ECAP.IR is 0."
    elif kind == 4 and INTERRUPT["g"].get(words):
        mask, largest = INTERRUPT["im"].get(words), config.ecap("mhmv")
        if mask > largest:
            yield UNSUPPORTED, f"{name}: IM is {mask}, ECAP.MHMV {largest}."


def _granularity_faults(kind: int, name: str, words: tuple[int, ...], config: UnitConfig) -> Found:
    if kind not in GRANULARITIES:
        return
    shape, known = GRANULARITIES[kind]
    granularity = shape["g"].get(words)
    if granularity not in known:
        yield GRANULARITY, f"{name}: granularity {granularity}."
        return
    if kind in (2, 6) and granularity == 3:
        # CAP.PSI speaks of the domain-based form alone.
        selective = 1 if kind == 6 else config.cap("psi")
        address, mask = shape["addr"].address(words), shape["am"].get(words)
        if wrong := page_selection_fault(selective, config.cap("mamv"), address, mask):
            yield PAGES, f"{name}: {wrong}"
    if (kind, granularity) in WITH_DOMAIN and shape["did"].get(words) >= domains(config):
        yield DOMAIN, f"{name}: domain {shape['did'].get(words):#x} of {domains(config):#x}."
