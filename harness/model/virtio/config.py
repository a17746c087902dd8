"""What a virtio-iommu is built from: features, config space, dialect."""

from __future__ import annotations

from dataclasses import dataclass, field

from decoders.bytewise import packed
from decoders.virtio_iommu.config import CONFIG_SIZE
from decoders.virtio_iommu.constants import Feature
from decoders.virtio_iommu.structures import Config
from harness.errors import HarnessError
from harness.model.virtio.dialect import SPECIFICATION, VirtioDialect

DEFAULT_MAPPING_BUDGET = 1 << 20
"""Mappings, domains and endpoints a unit may hold at once: hostile traces make many."""

_TOP64 = (1 << 64) - 1
_TOP32 = (1 << 32) - 1

PROBE_SIZE = 512
"""What QEMU's device gives as probe_size (VIOMMU_PROBE_SIZE in hw/virtio/virtio-iommu.c)."""

DEFAULT_CONFIG = packed(Config).pack(
    _TOP64 - 0xFFF, 0, _TOP64, 0, _TOP32, PROBE_SIZE, 1, bytes(3)
)  # fmt: skip
"""Config space where nothing else is known: 4 KiB pages and the defaults of QEMU's device."""

DEFAULT_FEATURES = int(
    Feature.INPUT_RANGE | Feature.DOMAIN_RANGE | Feature.MAP_UNMAP | Feature.PROBE
    | Feature.MMIO | Feature.BYPASS_CONFIG
)  # fmt: skip


class MappingBudgetError(HarnessError):
    """Refuse a trace that makes more mappings, domains and endpoints than the budget allows."""


@dataclass(frozen=True, slots=True)
class VirtioConfig:
    """Describe one virtio-iommu: the features it offers, its config space at power-on."""

    features: int = DEFAULT_FEATURES
    config: bytes = DEFAULT_CONFIG
    known: bool = True
    """Whether config comes from the device; otherwise the first ConfigSpace gives it."""
    dialect: VirtioDialect = field(default=SPECIFICATION)
    mapping_budget: int = DEFAULT_MAPPING_BUDGET


@dataclass(slots=True)
class Parameters:
    """Hold the fields of a config space that decide how requests are answered."""

    page_size_mask: int
    input_start: int
    input_end: int
    domain_start: int
    domain_end: int
    probe_size: int
    bypass: int

    @classmethod
    def of(cls, data: bytes) -> Parameters:
        """Read a config space; what it is too short for is zero."""
        *fields, _ = packed(Config).unpack(data[:CONFIG_SIZE].ljust(CONFIG_SIZE, b"\0"))
        return cls(*fields)

    @property
    def granule(self) -> int:
        """Return the smallest page size; 1 byte where the mask says nothing."""
        return (self.page_size_mask & -self.page_size_mask) or 1
