"""What the resolver answers: an IOMMU with an endpoint id, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class IommuKind(StrEnum):
    """Classify IOMMUs."""

    VT_D = "vt-d"
    AMD_VI = "amd-vi"
    SMMU = "smmu"
    SMMU_V3 = "smmuv3"
    VIRTIO_PCI = "virtio-pci"
    VIRTIO_MMIO = "virtio-mmio"


@dataclass(frozen=True, slots=True)
class Iommu:
    """Identify an IOMMU: the offset of its node in the table, its registers, its PCI function.

    segment and bdf are -1 for one that is no PCI function, base is -1 for one that PCI places.
    """

    kind: IommuKind
    node: int
    base: int = -1
    segment: int = -1
    bdf: int = -1

    def __str__(self) -> str:
        if self.base >= 0:
            return f"{self.kind} at {self.base:#x}"
        place = f"{self.segment:04x}:{self.bdf >> 8:02x}:{self.bdf >> 3 & 0x1F:02x}.{self.bdf & 7}"
        return f"{self.kind} at {place}"


@dataclass(frozen=True, slots=True)
class Behind:
    """Say that a device is behind an IOMMU.

    endpoint is the id of its requests there (requester id, stream id or endpoint id); path names
    the structure that decided. ats says whether the platform allows ATS, None where the table does
    not tell.
    """

    iommu: Iommu
    endpoint: int
    path: str
    ats: bool | None = None

    def __str__(self) -> str:
        ats = {True: ", ATS", False: ", no ATS", None: ""}[self.ats]
        return f"{self.iommu}, endpoint {self.endpoint:#x} ({self.path}){ats}"


class Why(StrEnum):
    """Say why a device is behind no IOMMU."""

    NOT_DESCRIBED = "not-described"
    """No structure of the table names it."""
    NO_MAPPING = "no-mapping"
    """Its node has no mapping for its id that leads to an IOMMU."""
    IS_IOMMU = "is-iommu"
    """It is the IOMMU, which does not translate for itself."""
    DANGLING = "dangling"
    """What should be the IOMMU is not there, or is none."""
    CIRCLE = "circle"
    """Its mappings lead back to where they began."""
    TOPOLOGY = "topology"
    """A path over bridges decides, and their bus numbers are not known."""
    NO_SUCH_NAME = "no-such-name"
    """The table names devices in another way."""
    NO_TABLE = "no-table"
    """The table is none that names IOMMUs."""


@dataclass(frozen=True, slots=True)
class Nowhere:
    """Say that a device is behind no IOMMU, and why; path names the structure that decided."""

    why: Why
    path: str
    text: str = ""

    def __str__(self) -> str:
        return f"no IOMMU ({self.why}, {self.path}){': ' if self.text else ''}{self.text}"


Answer = Behind | Nowhere
