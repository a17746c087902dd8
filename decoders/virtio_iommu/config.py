"""Config space of the device (virtio 1.4, 5.13.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from decoders.bytewise import decode, encode, packed, size_of
from decoders.virtio_iommu.constants import Feature
from decoders.virtio_iommu.structures import Config

CONFIG_SIZE: Final = size_of(Config)
BYPASS_OFFSET: Final = packed(Config).offset("bypass")
"""Where the only field that a driver may write is; a topology description begins here, too."""


def written_bypass(offset: int, size: int, value: int) -> int | None:
    """Return what a write to the config space makes of bypass; None when it does not reach it."""
    if not offset <= BYPASS_OFFSET < offset + size:
        return None
    return value >> 8 * (BYPASS_OFFSET - offset) & 0xFF


def bypasses(bypass: int, offered: int, accepted: int) -> bool:
    """Say whether endpoints without a domain reach memory as it is (5.13.6).

    Either feature is enough: BYPASS_CONFIG, offered, with bit 0 of the field, or BYPASS, accepted.
    """
    return bool((offered & Feature.BYPASS_CONFIG and bypass & 1) or accepted & Feature.BYPASS)


def decode_config(data: bytes, path: str = "config") -> Config:
    """Dissect the config space of a device without a topology description."""
    return decode(Config, data, path)


def encode_config(config: Config) -> bytes:
    """Return the bytes of the config space."""
    return encode(config)


def describe(config: Config, offered: int, accepted: int = 0) -> Iterator[str]:
    """Yield in words what the config space means with these features."""
    mask: int = config.page_size_mask
    if mask:
        yield f"granule {mask & -mask:#x}"
    else:
        yield "no page size, which no driver can use"
    first, last = 0, (1 << 64) - 1
    if offered & Feature.INPUT_RANGE:
        first, last = config.input_range_start, config.input_range_end
    yield f"addresses {first:#x} to {last:#x}"
    first, last = 0, (1 << 32) - 1
    if offered & Feature.DOMAIN_RANGE:
        first, last = config.domain_range_start, config.domain_range_end
    yield f"domains {first:#x} to {last:#x}"
    if offered & Feature.PROBE:
        yield f"{config.probe_size} bytes of properties"
    if bypasses(config.bypass, offered, accepted):
        yield "endpoints without a domain bypass"
    elif offered & Feature.BYPASS and not accepted:
        yield "endpoints without a domain bypass once the driver accepts BYPASS"
    elif offered & (Feature.BYPASS | Feature.BYPASS_CONFIG):
        yield "endpoints without a domain are refused"
