"""Ask a paused machine over its control socket what its IOMMU can do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from decoders.bytewise import build
from decoders.capture.qemu_log import QemuLogDecoder
from decoders.events import Endpoint
from decoders.virtio_iommu.config import encode_config
from decoders.virtio_iommu.structures import Config
from decoders.vtd import registers
from harness.errors import HarnessError
from harness.model.virtio.config import PROBE_SIZE
from harness.qemu.qmp import Qmp
from harness.trace import VIRTIO, UnitInfo

_GRANULES = {"4k": 4096, "8k": 8192, "16k": 16384, "64k": 65536}


def vtd_unit(qmp: Qmp, base: int) -> UnitInfo:
    """Read the capabilities of the VT-d unit whose registers are at base."""
    version, capability, extended_capability = (
        qmp.read_physical(base + register.offset, register.size) or 0
        for register in (registers.VER, registers.CAP, registers.ECAP)
    )
    return UnitInfo(
        base=base,
        version=version,
        capability=capability,
        extended_capability=extended_capability,
        # QEMU's unit takes as many bits out as it takes in.
        host_address_width=registers.address_width(capability),
    )


def virtio_device(qmp: Qmp) -> str | None:
    """Find the machine's virtio-iommu-pci; None when it has none."""
    for parent in ("/machine/peripheral", "/machine/peripheral-anon"):
        for child in qmp.execute("qom-list", path=parent):
            if child["type"] == "child<virtio-iommu-pci>":
                return f"{parent}/{child['name']}"
    return None


def virtio_unit(qmp: Qmp, device: str, log: bytes) -> UnitInfo:
    """Describe a virtio-iommu by its properties and by the features it has logged.

    The config space follows from the properties as in virtio_iommu_device_realize of QEMU.
    """

    def ask(name: str) -> Any:
        return qmp.execute("qom-get", path=device, property=name)

    decoder = QemuLogDecoder()
    for _ in decoder.feed(log):
        pass
    if decoder.virtio.offered is None:
        raise HarnessError("QEMU did not log the features of its virtio-iommu (-trace)")
    granule = _GRANULES.get(ask("granule"), os.sysconf("SC_PAGE_SIZE"))
    config = build(
        Config,
        page_size_mask=-granule % (1 << 64),
        input_range_end=(1 << int(ask("aw-bits"))) - 1,
        domain_range_end=(1 << 32) - 1,
        probe_size=PROBE_SIZE,
        bypass=int(ask("boot-bypass")),
    )
    return UnitInfo(
        kind=VIRTIO,
        base=0,
        capability=decoder.virtio.offered,
        config=encode_config(config),
    )


def virtio_endpoints(qmp: Qmp, device: str) -> tuple[Endpoint, ...]:
    """List the devices on bus 0, which are behind the unit; the firmware has yet to number others.

    The machine has given every endpoint the same reserved regions (pc_machine_device_pre_plug_cb).
    """
    regions = tuple(_regions(qmp.execute("qom-get", path=device, property="reserved-regions")))
    return tuple(
        Endpoint(int(one["slot"]) << 3 | int(one["function"]), regions)
        for bus in qmp.execute("query-pci")
        if bus["bus"] == 0
        for one in bus["devices"]
    )


def _regions(texts: list[str]) -> Iterator[tuple[int, int, int]]:
    for text in texts:
        match = re.fullmatch(r"0x([0-9a-f]+):0x([0-9a-f]+):([0-9]+)", text)
        if match is None:
            raise HarnessError(f"QEMU gives a reserved region as {text!r:.60}")
        yield int(match[3]), int(match[1], 16), int(match[2], 16)
