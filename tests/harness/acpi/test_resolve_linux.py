"""The resolver against what Linux reports in QEMU's machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.acpi.answers import Behind, IommuKind, Nowhere
from harness.acpi.machines import MACHINES
from harness.acpi.resolve import resolve
from tests.harness.acpi.guests import ANSWERS, Guest, guest, recorded
from tests.harness.acpi.linux_guest import ask

NOT_PROBED = {0x0318}
"""Behind a bridge from PCI Express to PCI, Linux gives virtio-iommu the device's own id as well as
the bridge's. QEMU knows no endpoint of the former, so that the probe fails and Linux leaves the
device alone; its requests would come from the bridge's id, which is our answer."""


def compare(found: Guest) -> int:
    """Check every device of a guest; give the number of devices behind an IOMMU."""
    behind = 0
    used = set()
    for seen in found.seen:
        answer = resolve(found.table, seen.device, found.topology)
        virtio = isinstance(answer, Behind) and answer.iommu.kind is IommuKind.VIRTIO_PCI
        if virtio and seen.device.bdf in NOT_PROBED:
            assert seen.iommu is None
            continue
        assert isinstance(answer, Behind) == (seen.iommu is not None), f"{seen}: {answer}"
        assert (seen.group is None) == (seen.iommu is None)
        if isinstance(answer, Behind):
            behind += 1
            used.add(answer.endpoint)
            expected = {IommuKind.VT_D: "dmar0", IommuKind.AMD_VI: "ivhd0"}
            iommu = answer.iommu
            place = f"{iommu.segment:04x}:{iommu.bdf >> 8:02x}:{iommu.bdf >> 3 & 31:02x}"
            assert seen.iommu == expected.get(iommu.kind, f"{place}.{iommu.bdf & 7}")
        else:
            assert isinstance(answer, Nowhere)
    if found.endpoints:
        assert used == set(found.endpoints)
    return behind


def test_there_is_a_guest_for_every_x86_machine() -> None:
    names = {path.name.partition(".")[0] for path in ANSWERS}
    assert names == {name for name in MACHINES if name.startswith("x86")}


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.name.partition(".")[0])
def test_recorded_guests(path: Path) -> None:
    assert compare(recorded(path)) > 1


def test_devices_in_all() -> None:
    assert sum(compare(recorded(path)) for path in ANSWERS) == 139


@pytest.mark.qemu
@pytest.mark.kernel
@pytest.mark.parametrize("name", ["x86-intel-pxb-bypass", "x86-amd-bridges", "x86-virtio-pxb"])
def test_guests_booted_now(name: str) -> None:
    assert compare(guest(ask(name))) > 1
