"""Print the config space of a virtio-iommu, what is wrong with it, and the id of a device in it."""

from __future__ import annotations

from pathlib import Path

from decoders.errors import DecodeError
from decoders.virtio_iommu.forms import Form
from decoders.virtio_iommu.topology import LARGEST_CONFIG, read_tolerant
from decoders.virtio_iommu.topology_rules import validate
from harness.acpi.answers import Behind, Iommu, IommuKind
from harness.acpi.resolve_config import resolve_config
from harness.acpi.show_nodes import as_json, show_node, show_violation
from harness.acpi.topology import PciDevice
from harness.errors import HarnessError
from harness.report import Report

FINE, FINDING = 0, 1

_THIS = Iommu(IommuKind.VIRTIO_PCI, -1)
"""The device that the file is of; where it is, is not known."""


def show(report: Report, file: Path, form: Form | None, device: int | None) -> int:
    """Print the config space in a file; return 1 when there are violations.

    Raise HarnessError when it cannot be decoded: after what can be is printed. form is what stands
    at offset 36 where that is known; device is the requester id of a PCI function whose endpoint
    id is wanted.
    """
    with file.open("rb") as stream:
        data = stream.read(LARGEST_CONFIG + 1)
    try:
        space = read_tolerant(data, form=form)
    except DecodeError as error:
        raise HarnessError(f"{file}: {error}") from error
    wrong = validate(space)
    if report.json:
        report.emit(form=space.form.value, bytes=len(data))
    else:
        report.heading(f"virtio-iommu config space  {len(data)} bytes, form {space.form}")
    for node in space.walk():
        if report.json:
            report.emit(**as_json(node))
        else:
            show_node(report, node, space.path)
    for violation in wrong:
        show_violation(report, violation)
    if device is not None:
        asked = PciDevice(0, device)
        answer = resolve_config(space, _THIS, asked)
        text = str(answer)
        if isinstance(answer, Behind):
            text = f"endpoint {answer.endpoint:#x} ({answer.path})"
        if report.json:
            report.emit(device=str(asked), answer=text)
        else:
            report.line(f"{asked}: {text}")
    fatal = [violation for violation in wrong if violation.fatal]
    if fatal:
        raise HarnessError(f"{file}: {fatal[0]}")
    return FINDING if wrong else FINE
