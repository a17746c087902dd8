"""What QEMU does otherwise for a device that has a TLB of its own, which vhost devices have.

Rows as in harness.deviations_vtd. Source, unless said: hw/virtio/vhost.c of QEMU 10.0.2.
"""

from __future__ import annotations

from typing import Final

from harness.differential.deviation import Condition, VtdDeviation

DEVICE_TLB: Final = (
    VtdDeviation(
        "device-requests-unchecked",
        "7.1.2, 7.1.3",
        "what a vhost device asks the IOMMU for is DMA: TT and DTE are not looked at, recoverable "
        "faults are recorded, AT of a record is 0",
        "vhost_device_iotlb_miss",
        members=("device_requests_unchecked",),
    ),
    VtdDeviation(
        "device-tlb-unsent",
        "6.5.2.5",
        "a vhost device is not told to forget anything while translation is off or it passes "
        "through (docs/findings/vhost-told-nothing.md)",
        "vhost_iommu_region_del; vtd_switch_address_space (hw/i386/intel_iommu.c)",
        shows=(Condition(("device-tlb",), observed=("nothing",), notes=("not translated",)),),
    ),
    VtdDeviation(
        "physical-function-reserved",
        "6.5.2.5, 6.5.2.6",
        "PFSID of a device-TLB invalidation is reserved",
        "vtd_process_device_iotlb_desc, vtd_process_device_piotlb_desc (hw/i386/intel_iommu.c)",
        shows=(
            Condition(
                ("device-tlb",),
                observed=("nothing",),
                notes=("device-TLB descriptor with PFSID", "tail written"),
            ),
            Condition(("IQH",), notes=("stopped at a device-TLB descriptor with PFSID",)),
        ),
    ),
    VtdDeviation(
        "pasid-zero-is-none",
        "6.5.2.6",
        "a PASID-based device-TLB invalidation of PASID 0 reaches a device without PASID",
        "observed on QEMU 11.1.3",
        since=(11,),
        shows=(
            Condition(
                ("device-tlb",),
                observed=("DeviceTlbMessage",),
                notes=("device-TLB descriptor with PASID 0",),
            ),
        ),
    ),
    VtdDeviation(
        "update-misses",
        "PCI Express 5.0, 10.2.3",
        "the translation that a vhost device gets does not cover the address it asked for, where "
        "the page begins in another part of RAM (docs/findings/vhost-translation-misses.md)",
        "vhost_device_iotlb_miss",
        shows=(
            Condition(("update",), observed=("translation",), notes=("page begins elsewhere",)),
        ),
    ),
    VtdDeviation(
        "update-permits-all",
        "7.1.3",
        "a vhost device that asks for one right to a page gets both, though the page has one only "
        "(docs/findings/vhost-permission.md)",
        "address_space_get_iotlb_entry (system/physmem.c)",
        shows=(
            Condition(
                ("permission",), observed=("translation",), notes=("page has one right only",)
            ),
        ),
    ),
)
