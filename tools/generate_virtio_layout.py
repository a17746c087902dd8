"""Write the part of the native core's layout header that is about virtio-iommu.

``python -m tools.generate_layout`` puts it into the header.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntFlag

from decoders.bytewise import ByteStructure, field_sizes, packed
from decoders.virtio_iommu import constants, structures
from harness.model.virtio import domain, rules, state, unit
from harness.trace.checks import ANSWER_LIMIT
from tools.cpp import enum, members

_PROLOGUE = """\
namespace virtio_iommu {

// A field of whole bytes: its offset in its structure and its size. get() and put() are for
// little-endian numbers of up to 8 bytes.
struct Bytes {
    std::uint32_t offset;
    std::uint32_t size;

    constexpr std::uint64_t get(const std::uint8_t *structure) const {
        std::uint64_t value = 0;
        for (std::uint32_t index = size; index-- > 0;)
            value = value << 8 | structure[offset + index];
        return value;
    }
    constexpr void put(std::uint8_t *structure, std::uint64_t value) const {
        for (std::uint32_t index = 0; index < size; ++index, value >>= 8)
            structure[offset + index] = static_cast<std::uint8_t>(value);
    }
    constexpr bool is_zero(const std::uint8_t *structure) const {
        for (std::uint32_t index = 0; index < size; ++index)
            if (structure[offset + index] != 0)
                return false;
        return true;
    }
};"""

_ENUMS = (
    constants.RequestType,
    constants.Status,
    constants.PropertyType,
    constants.ResvSubtype,
    constants.FaultReason,
)
_FLAGS: tuple[tuple[type[IntFlag], str], ...] = (
    (constants.Feature, "uint64_t"),
    (constants.AttachFlag, "uint32_t"),
    (constants.MapFlag, "uint32_t"),
    (constants.FaultFlag, "uint32_t"),
)
_NUMBERS = (
    "VIRTIO_ID_IOMMU",
    "PCI_VENDOR_ID",
    "PCI_DEVICE_ID",
    "REQUEST_QUEUE",
    "EVENT_QUEUE",
    "PROPERTY_TYPE_MASK",
)


def virtio_structures() -> list[type[ByteStructure]]:
    """Return every structure of virtio-iommu in the order of its declaration."""
    return [
        cls
        for cls in vars(structures).values()
        if isinstance(cls, type)
        and issubclass(cls, ByteStructure)
        and cls.__module__ == structures.__name__
    ]


def _structure(cls: type[ByteStructure]) -> Iterator[str]:
    yield f"struct {cls.__name__} {{"
    yield f"    static constexpr std::uint32_t size = {packed(cls).size};"
    for name, size in field_sizes(cls):
        yield f"    static constexpr Bytes {name}{{{packed(cls).offset(name)}, {size}}};"
    yield "};"


def _flags(flags: type[IntFlag], base: str) -> Iterator[str]:
    yield f"struct {flags.__name__} {{"
    for name, value in members(flags):
        yield f"    static constexpr std::{base} {name} = {value:#x};"
    yield f"    static constexpr std::{base} all = {sum(value for _, value in members(flags)):#x};"
    yield "};"


def _model() -> Iterator[str]:
    """Declare what the model and the core have to agree on."""
    yield "// harness/model/virtio"
    yield from enum("Condition", "uint8_t", members(rules.Condition), "d")
    yield f"inline constexpr std::size_t conditions = {len(rules.Condition)};"
    for name, value in (
        ("unwritten", rules.UNWRITTEN),
        ("doubtful_kept", domain.DOUBTFUL_KEPT),
        ("dropped_kept", state.DROPPED_KEPT),
        ("regions_kept", state.REGIONS_KEPT),
        ("bus_shift", state.BUS_SHIFT),
        ("answer_limit", ANSWER_LIMIT),
        ("searches", unit.SEARCHES),
    ):
        yield f"inline constexpr std::uint32_t {name} = {value:#x};"


def sections() -> Iterator[Iterable[str]]:
    """Yield the parts of the header that are about virtio-iommu."""
    yield _PROLOGUE.splitlines()
    for cls in virtio_structures():
        yield _structure(cls)
    for numbers in _ENUMS:
        yield enum(numbers.__name__, "uint8_t", members(numbers), "d")
    for flags, base in _FLAGS:
        yield _flags(flags, base)
    yield [
        f"inline constexpr std::uint32_t {name.lower()} = {getattr(constants, name):#x};"
        for name in _NUMBERS
    ]
    yield _model()
    yield ["} // namespace virtio_iommu"]
