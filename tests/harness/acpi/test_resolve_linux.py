"""The resolver against what Linux reports in QEMU's machines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.acpi.answers import Answer, Behind, Iommu, IommuKind
from harness.acpi.machines import MACHINES
from harness.acpi.resolve import resolve
from harness.acpi.topology import BridgeKind, PciDevice
from harness.errors import HarnessError
from harness.native import available
from harness.native.acpi import NativeResolver
from tests.harness.acpi.guests import ANSWERS, CORPUS, Guest, guest, recorded
from tests.harness.acpi.linux_guest import ask, parts

NO_GUEST = {"arm-smmuv3-no-its", "arm-virtio-no-its"}
"""With its=off QEMU 10.0 still describes an ITS in MADT and IORT: Linux 6.12 dies in its_map_one
(drivers/irqchip/irq-gic-v3-its.c), before it looks for devices."""

ARM = [path for path in ANSWERS if path.name.startswith("arm")]
UNSEEN = {IommuKind.VT_D, IommuKind.AMD_VI}
"""IOMMUs whose endpoint ids a guest does not show."""


def answer_of_tables(found: Guest, device: PciDevice) -> Answer:
    """Give the answer of the one table that names an IOMMU, else that of the last.

    Linux asks an IORT first, then a VIOT (drivers/acpi/scan.c acpi_iommu_configure_id).
    """
    answers = [resolve(table, device, found.topology) for table in found.tables]
    behind = [answer for answer in answers if isinstance(answer, Behind)]
    assert len(behind) <= 1, f"{device}: {behind}"
    return behind[0] if behind else answers[-1]


def name_in_linux(iommu: Iommu) -> str:
    match iommu.kind:
        case IommuKind.VT_D:
            return "dmar0"
        case IommuKind.AMD_VI:
            return "ivhd0"
        case IommuKind.SMMU_V3:
            return f"smmu3.0x{iommu.base:016x}"
        case _:
            return str(PciDevice(iommu.segment, iommu.bdf))


def left_alone(found: Guest, device: PciDevice, answer: Behind) -> bool:
    """Say whether Linux leaves a device alone though it is behind an IOMMU.

    Of a device whose requests show as a bridge's, Linux gives the IOMMU the ids that they have on
    the way, too. A virtio-iommu of QEMU knows no endpoint of such an id, so that the probe fails.
    The driver of an SMMU sets up all of them, but for one device: where a second one has an id of
    the first, it refuses that (arm_smmu_insert_master). The requests would come from the last of
    the ids, which is our answer.
    """
    shown = found.topology.requester(device)
    if answer.iommu.kind is IommuKind.VIRTIO_PCI:
        return shown != device
    if device not in found.taken:
        return False
    stream, by = found.taken[device]
    bridges = [b for b in found.topology.above(device) if b.kind is not BridgeKind.EXPRESS]
    assert stream in [shown.bdf, *(b.device.bdf for b in bridges)], f"{device}: {stream:#x}"
    first = answer_of_tables(found, by)
    assert isinstance(first, Behind)
    assert (first.iommu, first.endpoint) == (answer.iommu, answer.endpoint), f"{device}: {first}"
    return True


def compare(found: Guest) -> int:
    """Check every device of a guest; give the number of devices behind an IOMMU."""
    behind = 0
    endpoints = set()
    groups: dict[tuple[Iommu, int], int | None] = {}
    for seen in found.seen:
        answer = answer_of_tables(found, seen.device)
        assert (seen.group is None) == (seen.iommu is None)
        if isinstance(answer, Behind) and left_alone(found, seen.device, answer):
            assert seen.iommu is None, f"{seen}: {answer}"
            continue
        name = name_in_linux(answer.iommu) if isinstance(answer, Behind) else None
        assert name == seen.iommu, f"{seen}: {answer}"
        if isinstance(answer, Behind):
            behind += 1
            if answer.iommu.kind not in UNSEEN:
                endpoints.add(answer.endpoint)
            # Devices that show one id cannot be told apart, so that Linux has them in one group.
            group = groups.setdefault((answer.iommu, answer.endpoint), seen.group)
            assert group == seen.group, f"{seen}: {answer}"
    assert endpoints == set(found.endpoints)
    return behind


def test_there_is_a_guest_for_every_machine_that_linux_boots_on() -> None:
    names = {path.name.partition(".")[0] for path in ANSWERS}
    assert names == MACHINES.keys() - NO_GUEST


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.name.partition(".")[0])
def test_recorded_guests(path: Path) -> None:
    behind = compare(recorded(path))
    assert behind == 0 if path.name.startswith("arm-its.") else behind > 1


@pytest.mark.parametrize("path", ARM, ids=lambda path: path.name.partition(".")[0])
def test_tables_of_a_stopped_machine_are_those_behind_firmware(path: Path) -> None:
    name = path.name.partition(".")[0]
    for table in recorded(path).tables:
        kept = CORPUS / f"qemu/{name}.{table.signature.lower()}"
        assert table.encode() == kept.read_bytes()


@pytest.mark.skipif(not available(), reason="the native core is not built")
@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.name.partition(".")[0])
def test_the_native_core_says_the_same_of_recorded_guests(path: Path) -> None:
    found = recorded(path)
    devices = [seen.device for seen in found.seen]
    native = NativeResolver(devices, found.topology)
    for table in found.tables:
        problem, answers = native.ask(table.encode())
        assert problem is None
        assert answers == [resolve(table, device, found.topology) for device in devices]


def test_devices_in_all() -> None:
    devices = [recorded(path) for path in ANSWERS]
    assert sum(len(one.seen) for one in devices) == 240
    assert sum(compare(one) for one in devices) == 204
    assert sum(len(one.taken) for one in devices) == 4


@pytest.mark.qemu
@pytest.mark.kernel
@pytest.mark.parametrize("name", ["x86-intel-pxb-bypass", "x86-amd-bridges", "x86-virtio-pxb"])
def test_guests_booted_now(name: str) -> None:
    assert compare(guest(ask(name))) > 1


@pytest.mark.optional
@pytest.mark.parametrize("name", ["arm-smmuv3-pxb-between", "arm-virtio-pxb-between"])
def test_arm_guests_booted_now(name: str) -> None:
    if shutil.which("qemu-system-aarch64") is None:
        pytest.skip("qemu-system-aarch64 is not installed")
    try:
        parts(name)
    except HarnessError as error:
        pytest.skip(str(error))
    assert compare(guest(ask(name))) > 1
