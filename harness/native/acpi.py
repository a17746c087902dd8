"""The core's reader and resolver of ACPI tables, with the answers of harness.acpi.resolve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from decoders.errors import DecodeError
from harness.acpi.answers import Answer, Behind, Iommu, IommuKind, Nowhere, Why
from harness.acpi.topology import Device, MmioDevice, NamedDevice, PciDevice, Topology
from harness.native.loading import core

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from harness.native import _core

LONGEST_NUMBER: Final = 1000
"""Digits of the longest UID that is taken for a number; the 255 bytes of an IVRS make 615."""


class NativeResolver:
    """Ask many tables about the same devices.

    Numbers of devices and bridges have the widths that PCI gives them (a segment and the id of a
    named device 32 bits); raise ValueError for one that does not fit.
    """

    def __init__(self, devices: Sequence[Device], topology: Topology | None = None) -> None:
        bridges = None
        if topology is not None:
            bridges = [
                (b.device.segment, b.device.bdf, b.secondary, str(b.kind)) for b in topology.bridges
            ]
        plain = [_plain_device(device) for device in devices]
        self._questions: _core.AcpiQuestions = core().AcpiQuestions(plain, bridges)

    def ask(self, data: Buffer) -> tuple[DecodeError | None, list[Answer]]:
        """Read one table and resolve every device.

        Return what `decoders.acpi.read` would raise, and what `resolve` answers for the table that
        `read_tolerant` makes.
        """
        problem, answers = self._questions.ask(data)
        return problem and DecodeError(*problem), [_answer(plain) for plain in answers]

    def run(self, data: Buffer) -> None:
        """Do what ask() does, and keep what comes of it to itself."""
        self._questions.run(data)


def read_and_resolve(data: Buffer, device: Device, topology: Topology | None = None) -> Answer:
    """Return the IOMMU of a device by one table; raise DecodeError when it cannot be decoded."""
    problem, answers = NativeResolver([device], topology).ask(data)
    if problem is not None:
        raise problem
    return answers[0]


def _plain_device(device: Device) -> _core.AcpiDevice:
    match device:
        case PciDevice(segment, bdf):
            return ("pci", segment, bdf)
        case MmioDevice(address):
            return ("mmio", address)
        case NamedDevice(name, uid, number):
            return ("named", _octets(name), _octets(uid), _number(uid), number)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _number(uid: str) -> bytes | None:
    """Return the bytes of a number that an IVRS shows as uid, if there are any."""
    if not (uid.isascii() and uid.isdigit()) or len(uid) > LONGEST_NUMBER or str(int(uid)) != uid:
        return None
    number = int(uid)
    return number.to_bytes((number.bit_length() + 7) // 8, "little")


def _answer(plain: tuple[Any, ...]) -> Answer:
    if plain[0] == "nowhere":
        _, why, path, text = plain
        return Nowhere(Why(why), path, text)
    _, kind, node, base, segment, bdf, endpoint, path, ats = plain
    return Behind(Iommu(IommuKind(kind), node, base, segment, bdf), endpoint, path, ats)
