"""What may stand at offset 36 of config space: the bypass field, or a draft's topology description.

Three drafts let a guest learn from config space which endpoint ids a device manages; none was
merged. All used bit 6 of the features, which `BYPASS_CONFIG` got in the end. They are told apart
here by the date on which they were posted to the Linux kernel's lists. Each has two kinds of item,
whose fields have one name here: V1 and V2 call a segment hierarchy and a bdf requester.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from decoders.bytewise import ByteStructure, octets, packed, size_of, u8, u16, u32, u64
from decoders.errors import DecodeError
from decoders.virtio_iommu.constants import Feature
from decoders.virtio_iommu.structures import Config


class Form(StrEnum):
    """Name the forms of config space."""

    PLAIN = "plain"
    """Without bit 6: nothing that has a meaning stands at 36."""
    BYPASS_CONFIG = "bypass-config"
    """The specification's (virtio 1.4, 5.13.4)."""
    V1 = "v1"
    """A linked list of items (November 2019)."""
    V2 = "v2"
    """An array of items of one length (February 2020)."""
    V3 = "v3"
    """A row of items that give their own length (August 2020)."""


class FixedConfig(ByteStructure):
    """Begin config space in every form."""

    fields_desc = Config.fields_desc[:-2]


class HeadV1(ByteStructure):
    """Point to the first item from the start of config space, 0 for none."""

    fields_desc = u16("offset", "reserved")


class HeadV2(ByteStructure):
    """Say where the items are, and how far apart."""

    fields_desc = u32("offset", "count", "item_length")


class HeadV3(ByteStructure):
    """Say where the first item is."""

    fields_desc = u16("count", "offset")


class PciRange(ByteStructure):
    """Give endpoint ids to the PCI devices of a segment from bdf_start to bdf_end (included)."""


class Mmio(ByteStructure):
    """Give an endpoint id to the device at an address."""


class ItemV1(ByteStructure):
    """Begin an item; next is the offset of another one, or 0."""

    fields_desc = u16("type", "next")


class PciRangeV1(PciRange):
    """Describe PCI devices in form V1."""

    fields_desc = [
        *u16("type", "next"),
        *u32("endpoint_start"),
        *u16("segment", "bdf_start", "bdf_end", "reserved"),
    ]


class MmioV1(Mmio):
    """Describe a device with an address in form V1."""

    fields_desc = [*u16("type", "next"), *u32("endpoint"), *u64("address")]


class ItemV2(ByteStructure):
    """Begin an item."""

    fields_desc = u16("type")


class PciRangeV2(PciRange):
    """Describe PCI devices in form V2."""

    fields_desc = [*u16("type", "segment", "bdf_start", "bdf_end"), *u32("endpoint_start")]


class MmioV2(Mmio):
    """Describe a device with an address in form V2."""

    fields_desc = [*u16("type", "reserved"), *u32("endpoint"), *u64("address")]


class ItemV3(ByteStructure):
    """Begin an item of `length` bytes."""

    fields_desc = [*u8("type", "reserved"), *u16("length")]


class PciRangeV3(PciRange):
    """Describe PCI devices in form V3."""

    fields_desc = [
        *ItemV3.fields_desc,
        *u32("endpoint_start"),
        *u16("segment", "bdf_start", "bdf_end"),
        *octets("reserved1", 2),
    ]


class MmioV3(Mmio):
    """Describe a device with an address in form V3."""

    fields_desc = [*ItemV3.fields_desc, *u32("endpoint"), *u64("address")]


HEADS: Final[dict[Form, type[ByteStructure]]] = {
    Form.V1: HeadV1,
    Form.V2: HeadV2,
    Form.V3: HeadV3,
}
ITEMS: Final[dict[Form, dict[int, type[ByteStructure]]]] = {
    Form.V1: {0: PciRangeV1, 1: MmioV1},
    Form.V2: {1: PciRangeV2, 2: MmioV2},
    Form.V3: {1: PciRangeV3, 2: MmioV3},
}
"""Types of items that are defined; readers skip any other."""

FIXED_SIZE: Final = size_of(FixedConfig)
FIRST_ITEM: Final = {form: FIXED_SIZE + size_of(head) for form, head in HEADS.items()}
"""Where the first item can be."""

SMALLEST_ITEM: Final = min(size_of(cls) for cls in ITEMS[Form.V2].values())
ALIGNMENT: Final = 8
"""Of the first item in form V3."""


def detect(
    config: bytes,
    features: int = Feature.BYPASS_CONFIG,
    form: Form | None = None,
    path: str = "config",
) -> Form:
    """Return the form of a config space; form overrides the guess, as whoever recorded it knows.

    Bit 6 alone decides whether there is anything to guess. Then only the numbers at 36 and behind
    are looked at, not the items: a V1 without items is taken for a bypass field, and a V1 whose
    first item stands behind others may be taken for a V2. Raise DecodeError when no form suits.
    """
    if form is not None:
        return form
    if not features & Feature.BYPASS_CONFIG:
        return Form.PLAIN
    if len(config) < size_of(Config):
        problem = f"bit 6 of the features needs {size_of(Config)} bytes"
        raise DecodeError(f"{path}.bypass", problem, len(config))
    if config[FIXED_SIZE] <= 1 and not any(config[FIXED_SIZE + 1 : size_of(Config)]):
        return Form.BYPASS_CONFIG
    _, offset = packed(HeadV3).unpack(config, FIXED_SIZE)
    if offset >= FIRST_ITEM[Form.V3]:
        return Form.V3
    if FIRST_ITEM[Form.V2] <= len(config):
        place, count, length = packed(HeadV2).unpack(config, FIXED_SIZE)
        possible = place >= FIRST_ITEM[Form.V2] and length >= SMALLEST_ITEM
        if possible and place + count * length <= len(config):
            return Form.V2
    offset, _ = packed(HeadV1).unpack(config, FIXED_SIZE)
    if offset >= FIRST_ITEM[Form.V1]:
        return Form.V1
    raise DecodeError(path, "neither a bypass field nor a topology description", FIXED_SIZE)
