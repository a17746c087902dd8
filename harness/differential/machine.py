"""What the model and the generator are told of a running VT-d unit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from decoders.events import AccessKind
from decoders.layout import layout
from decoders.vtd.descriptors import DESCRIPTORS
from decoders.vtd.faults import FaultRecordRegister
from harness.generate.vtd_steps import Device, Scene
from harness.model.config import UnitConfig
from harness.model.dialects import Dialect
from harness.qemu.device_tlb import AtsDevice
from harness.qemu.vtd import MEMORY, POOL_PAGES, POOL_START, VtdQemu

UNTRACED: Final = frozenset(DESCRIPTORS)
"""Types of descriptors: none shows when it is taken; the head of the queue does."""

_PV: Final = layout(FaultRecordRegister)["pv"].mask


def unit_config(qemu: VtdQemu, dialect: Dialect) -> UnitConfig:
    """Return the configuration of a running unit, judged as a dialect has it."""
    # What PV says where there was no PASID is undefined, and there never is one.
    ignored = dialect.fault_record_ignored | _PV
    dialect = replace(
        dialect,
        untraced_descriptors=UNTRACED,
        fault_record_ignored=ignored,
        device_messages_traced=qemu.device_tlb is not None,
    )
    return UnitConfig(
        capability=qemu.capability,
        extended_capability=qemu.extended_capability,
        version=qemu.unit_version,
        host_address_width=qemu.width,
        memory=MEMORY,
        dialect=dialect,
    )


def scene(qemu: VtdQemu, config: UnitConfig, avoided: Collection[str] = ()) -> Scene:
    """Describe a QEMU for the generator; avoided are ids of known crashes."""
    devices = [
        Device(
            qemu.sid(index),
            device.width,
            tuple(
                kind for kind in (AccessKind.WRITE, AccessKind.READ) if device.operation(kind, 0)
            ),
            device.write_alignment,
            isinstance(device, AtsDevice),
        )
        for index, device in enumerate(qemu.devices)
    ]
    senders = tuple(sender.function.requester for sender in qemu.senders)
    return Scene(config, devices, POOL_START, POOL_PAGES, frozenset(avoided), senders)
