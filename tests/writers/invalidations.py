"""Say invalidations once and give them both ways: through registers or through the queue."""

from __future__ import annotations

from decoders.vtd import registers as vtd
from decoders.vtd.descriptors import (
    ContextCacheInvalidation,
    IotlbInvalidation,
    PasidCacheInvalidation,
    PasidIotlbInvalidation,
)
from decoders.vtd.registers import ContextCommand, IotlbRegister, Iva
from tests.writers.platform import DEVICE, DOMAIN, Platform, descriptor, quadword

GLOBAL, BY_DOMAIN, SELECTIVE = 1, 2, 3
"""Granularities of context-cache (SELECTIVE: device) and IOTLB (SELECTIVE: page) invalidations."""
WAYS = ("register", "queue")


def contexts(
    platform: Platform, way: str, g: int, *, domain: int = DOMAIN, sid: int = DEVICE, fm: int = 0
) -> None:
    """Invalidate context entries."""
    if way == "register":
        command = quadword(ContextCommand, icc=1, cirg=g, did=domain, sid=sid, fm=fm)
        platform.program(vtd.CCMD, command)
    else:
        platform.submit(descriptor(ContextCacheInvalidation, g=g, did=domain, sid=sid, fm=fm))


def iotlb(
    platform: Platform, way: str, g: int, *, domain: int = DOMAIN, address: int = 0, am: int = 0,
    ih: int = 0,
) -> None:  # fmt: skip
    """Invalidate translations."""
    if way == "register":
        platform.program(vtd.IVA, quadword(Iva, am=am, ih=ih, addr=address >> 12))
        platform.program(vtd.IOTLB, quadword(IotlbRegister, ivt=1, iirg=g, did=domain))
    else:
        content = descriptor(IotlbInvalidation, g=g, did=domain, am=am, ih=ih, addr=address >> 12)
        platform.submit(content)


def pages(platform: Platform, address: int, *, am: int = 0, ih: int = 0) -> None:
    """Invalidate 2^am second-stage pages of DOMAIN through registers."""
    iotlb(platform, "register", SELECTIVE, address=address, am=am, ih=ih)


def pasid_entries(platform: Platform, g: int, *, domain: int = DOMAIN, pasid: int = 0) -> None:
    """Invalidate PASID entries: g is 0 for a domain, 1 for a PASID in it, 3 for all."""
    wide(platform)
    platform.submit(descriptor(PasidCacheInvalidation, g=g, did=domain, pasid=pasid))


def pasid_iotlb(
    platform: Platform, g: int, *, domain: int = DOMAIN, pasid: int = 0, address: int = 0,
    am: int = 0, ih: int = 0,
) -> None:  # fmt: skip
    """Invalidate translations of a PASID: g is 2 for all of them, 3 for 2^am pages."""
    wide(platform)
    content = descriptor(
        PasidIotlbInvalidation, g=g, did=domain, pasid=pasid, am=am, ih=ih, addr=address >> 12
    )
    platform.submit(content)


def wide(platform: Platform) -> None:
    """Start a queue of 256-bit descriptors unless one runs."""
    if platform.ring is None:
        platform.start_queue(wide=True)
