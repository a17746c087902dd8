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


def decode_config(data: bytes, path: str = "config") -> Config:
    """Dissect the config space of a device without a topology description."""
    return decode(Config, data, path)


def encode_config(config: Config) -> bytes:
    """Return the bytes of the config space."""
    return encode(config)


def describe(config: Config, features: int) -> Iterator[str]:
    """Yield in words what the config space means where the device offers these features."""
    mask: int = config.page_size_mask
    if mask:
        yield f"granule {mask & -mask:#x}"
    else:
        yield "no page size, which no driver can use"
    first, last = 0, (1 << 64) - 1
    if features & Feature.INPUT_RANGE:
        first, last = config.input_range_start, config.input_range_end
    yield f"addresses {first:#x} to {last:#x}"
    first, last = 0, (1 << 32) - 1
    if features & Feature.DOMAIN_RANGE:
        first, last = config.domain_range_start, config.domain_range_end
    yield f"domains {first:#x} to {last:#x}"
    if features & Feature.PROBE:
        yield f"{config.probe_size} bytes of properties"
    if features & Feature.BYPASS_CONFIG:
        # Bit 0 counts, and whether the driver accepts the feature does not matter.
        yield f"endpoints without a domain {'bypass' if config.bypass & 1 else 'are refused'}"
    elif features & Feature.BYPASS:
        yield "endpoints without a domain bypass once the driver accepts BYPASS"
