"""Tables to begin with: those of the corpus, the draft form of VIOT, and some made to hurt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from decoders.acpi import (
    LARGEST_TABLE,
    MOST_STRUCTURES,
    Header,
    dmar,
    iort_nodes,
    ivrs,
    read_tolerant,
    seal,
    viot,
)
from decoders.acpi.structures import Number64
from decoders.bytewise import ByteStructure, build, encode, size_of

CORPUS: Final = Path(__file__).parents[1] / "corpora/acpi/qemu"
_NODES_AT: Final = size_of(Header) + size_of(iort_nodes.Iort)
_LONGEST_NODE: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Seed:
    """Hold a table with the places in it that are worth changing."""

    name: str
    data: bytes
    numbers: tuple[tuple[int, int], ...]
    """Offset and size of its number fields."""
    nodes: tuple[tuple[int, int], ...]
    """Start and end of its nodes."""
    start: int
    """Where the table that has the nodes begins."""


def seed(name: str, data: bytes) -> Seed:
    """Find the places in a table that are worth changing."""
    table = inner = read_tolerant(data)
    while inner.inner is not None:
        inner = inner.inner
    nodes = tuple((node.offset, node.offset + node.body.length) for node in inner.nodes)
    numbers = tuple((o.offset, o.size) for o in table.located() if isinstance(o.value, int))
    return Seed(name, data, numbers, nodes, inner.offset)


def corpus() -> list[Seed]:
    """Return the tables of the corpus, and drafts that wrap its IORTs and have their own nodes."""
    blobs = {path.name: path.read_bytes() for path in sorted(CORPUS.iterdir())}
    drafts = {
        f"draft-{name}": _draft(data) for name, data in blobs.items() if name.endswith(".iort")
    }
    return [seed(name, data) for name, data in (blobs | drafts | _rich()).items()]


def bombs() -> list[Seed]:
    """Return tables that are large, that refer to themselves, or that announce what is not there.

    They are as large as is read, or have as many structures.
    """
    tables = _references() | _counts() | _lengths() | _short()
    return [seed(f"bomb-{name}", data) for name, data in tables.items()]


def _table(signature: bytes, *parts: bytes) -> bytes:
    header = build(Header, signature=signature, revision=1, oem_id=b"DMAREW")
    return seal(encode(header) + b"".join(parts))


def _one(cls: type[ByteStructure], tail: bytes = b"", **values: int | bytes) -> bytes:
    """Make a node of the length that it has with its tail, unless another one is given."""
    body = build(cls, **({"length": size_of(cls) + len(tail)} | values))
    return encode(body) + tail


def _mapping(reference: int, **values: int) -> bytes:
    given = {"id_count": 0xFFFF, "output_reference": reference} | values
    return encode(build(iort_nodes.IdMapping, **given))


def _iort_node(kind: int, cls: type[ByteStructure], *mappings: bytes, **values: int) -> bytes:
    given = {
        "type": kind,
        "mapping_count": len(mappings),
        "mapping_offset": size_of(cls) if mappings else 0,
    }
    return _one(cls, b"".join(mappings), **(given | values))


def _iort(nodes: Sequence[bytes], **values: int) -> bytes:
    given = {"node_count": len(nodes), "node_offset": _NODES_AT} | values
    return _table(b"IORT", encode(build(iort_nodes.Iort, **given)), *nodes)


def _viot(nodes: Sequence[bytes], **values: int) -> bytes:
    given = {"node_count": len(nodes), "node_offset": viot.FIXED_SIZE} | values
    return _table(b"VIOT", encode(build(viot.Viot, **given)), *nodes)


def _dmar(*nodes: bytes) -> bytes:
    return _table(b"DMAR", encode(build(dmar.Dmar, width=38)), *nodes)


def _ivrs(*nodes: bytes) -> bytes:
    return _table(b"IVRS", encode(build(ivrs.Ivrs)), *nodes)


def _wrapped(inner: bytes) -> bytes:
    return _table(b"VIOT", encode(build(viot.DraftViot)), inner)


def _draft(iort: bytes) -> bytes:
    """Wrap an IORT and give it the nodes that only a draft has, one of them its new IOMMU."""
    pci = _iort_node(0x80, iort_nodes.DraftVirtioPci, devid=8)
    mmio = _iort_node(0x81, iort_nodes.DraftVirtioMmio, base_address=0xA000, span=0x200)
    root = _iort_node(2, iort_nodes.RootComplex, _mapping(len(iort)), pci_segment_number=1)
    count = read_tolerant(iort).lead[1]
    grown = bytearray(iort + pci + mmio + root)
    at = count.locate("node_count")
    grown[at : at + 4] = (count.body.node_count + 3).to_bytes(4, "little")
    return _wrapped(seal(bytes(grown)))


def _rich() -> dict[str, bytes]:
    """Make tables that have the kinds of structures that the corpus lacks."""
    smmu = _one(
        iort_nodes.Smmu,
        encode(build(iort_nodes.GlobalInterrupts)) + bytes(2 * size_of(Number64)),
        type=3,
        base_address=0x9050000,
        global_interrupt_offset=60,
        context_interrupt_count=1,
        context_interrupt_offset=76,
        pmu_interrupt_count=1,
        pmu_interrupt_offset=84,
    )
    at = _NODES_AT
    named = iort_nodes.NamedComponent
    component = _one(
        named,
        b"\\_SB.DEV0\0\0" + _mapping(at),
        type=1,
        mapping_count=1,
        mapping_offset=size_of(named) + 11,
    )
    ranges = encode(build(iort_nodes.ReservedRange, base_address=0x10000, length=0x10000))
    memory = _one(iort_nodes.ReservedMemory, ranges, type=6, rmr_count=1, rmr_offset=28)
    single = _mapping(at, flags=1, output_base=7)
    pmcg = _iort_node(5, iort_nodes.Pmcg, single, node_reference=at)
    bridge = _one(iort_nodes.Iwb, b"\\_SB.IWB0\0", type=7)
    # 00:01.0, then the first device of the bus behind it
    scopes = [
        encode(build(dmar.DeviceScope, entry_type=kind, length=6 + len(path), enumeration_id=1))
        + path
        for kind, path in ((1, b"\1\0"), (2, b"\1\0"), (1, b"\1\0\0\0"), (5, b"\3\0"))
    ]
    entries = [
        encode(build(cls, type=kind, device_id=device, **more))
        for kind, cls, device, more in (
            (ivrs.RANGE_START, ivrs.DeviceEntry, 8, {}),
            (ivrs.RANGE_END, ivrs.DeviceEntry, 0x1FF, {}),
            (ivrs.ALIAS_START, ivrs.AliasEntry, 0x300, {"used_id": 0x18}),
            (ivrs.RANGE_END, ivrs.DeviceEntry, 0x3FF, {}),
            (ivrs.EXTENDED_SELECT, ivrs.ExtendedEntry, 0x400, {"extended_data": 1 << 31}),
            (ivrs.SPECIAL, ivrs.SpecialEntry, 0, {"used_id": 0xA0, "variety": 1}),
        )
    ]
    hid = build(ivrs.HidEntry, type=0xF0, device_id=0xA5, acpi_hid=b"AMDI0020", uid_length=1)
    block = b"".join(entries) + encode(hid) + b"7"
    return {
        "rich.viot": _viot(
            [
                _one(viot.VirtioMmioIommu, type=4, base_address=0xA000),
                _one(viot.MmioEndpoint, type=2, endpoint=5, base_address=0xB000, output_node=48),
                _one(viot.PciRange, type=1, segment_end=3, bdf_end=0xFFFF, output_node=48),
            ]
        ),
        "rich.iort": _iort([smmu, component, memory, pmcg, bridge]),
        "rich.dmar": _dmar(
            _one(dmar.Drhd, scopes[2] + scopes[3], type=0, address=0xFED90000),
            _one(dmar.Drhd, scopes[1], type=0, address=0xFED91000),
            _one(dmar.Drhd, type=0, flags=1, address=0xFED92000),
            _one(dmar.Rmrr, scopes[0], type=1, base_address=0x1000, end_address=0x1FFF),
            _one(dmar.Atsr, scopes[1], type=2),
            _one(dmar.Andd, b"\\_SB.DEV0\0", type=4, device_number=1),
            _one(dmar.Satc, scopes[0], type=5),
        ),
        "rich.ivrs": _ivrs(
            _one(ivrs.Ivhd10, block, type=0x10, device_id=2, base_address=0xFEB80000),
            _one(ivrs.Ivhd11, block, type=0x11, device_id=2, base_address=0xFEB80000),
            _one(ivrs.Ivmd, type=0x20, start_address=0x1000, memory_length=0x1000),
        ),
    }


def _references() -> dict[str, bytes]:
    root = iort_nodes.RootComplex
    size = size_of(root) + size_of(iort_nodes.IdMapping)
    count = MOST_STRUCTURES // 3 - 2  # a node has three, and the tables have some before it
    ring = [_iort_node(2, root, _mapping(_NODES_AT + (n + 1) % count * size)) for n in range(count)]
    area = _one(viot.PciRange, type=1, bdf_end=0xFFFF, output_node=viot.FIXED_SIZE)
    return {
        "viot-itself": _viot([area]),
        "iort-itself": _iort([_iort_node(2, root, _mapping(_NODES_AT))]),
        "iort-ring": _iort(ring),
        "draft-ring": _wrapped(_iort(ring)),
    }


def _counts() -> dict[str, bytes]:
    most = (1 << 32) - 1
    cls = iort_nodes.ReservedMemory
    return {
        "viot-nodes": _viot([_one(viot.VirtioPciIommu, type=3, bdf=8)], node_count=0xFFFF),
        "iort-nodes": _iort([_iort_node(0, iort_nodes.ItsGroup)], node_count=most),
        "iort-mappings": _iort(
            [_iort_node(2, iort_nodes.RootComplex, mapping_count=most, mapping_offset=36)]
        ),
        "iort-identifiers": _iort([_iort_node(0, iort_nodes.ItsGroup, its_count=most)]),
        "iort-ranges": _iort([_one(cls, type=6, rmr_count=most, rmr_offset=most)]),
    }


def _lengths() -> dict[str, bytes]:
    """Make tables of the maximal size, or with as many structures as are read and one more."""
    empty = _one(viot.ViotNodeHeader, type=9)
    long = _one(viot.ViotNodeHeader, bytes(0xFFF0), type=9)
    unknown = _one(dmar.DmarNodeHeader, type=9)
    room = LARGEST_TABLE - viot.FIXED_SIZE
    scope = encode(build(dmar.DeviceScope, entry_type=2, length=8, bus=1)) + b"\1\0"
    scopes = scope * ((_LONGEST_NODE - size_of(dmar.Drhd)) // len(scope))
    unit = _one(dmar.Drhd, scopes, type=0, address=0xFED90000)
    path = encode(build(dmar.DeviceScope, entry_type=1, length=254)) + b"\1\0" * 124
    paths = _one(dmar.Drhd, path * 130, type=0, address=0xFED90000)
    entries = encode(build(ivrs.DeviceEntry, type=ivrs.SELECT, device_id=9)) * 15000
    mappings = [_mapping(_NODES_AT, input_base=n << 16) for n in range(1, 3201)]
    blocks = [_iort_node(2, iort_nodes.RootComplex, *mappings)] * 5
    name = b"\\" * (_LONGEST_NODE - size_of(iort_nodes.NamedComponent))
    named = _one(iort_nodes.NamedComponent, name, type=1)
    return {
        "viot-most": _viot([empty] * (MOST_STRUCTURES // 2 - 1)),
        "viot-more": _viot([empty] * MOST_STRUCTURES),
        "viot-largest": _viot([long] * (room // len(long))),
        "viot-too-large": _table(b"VIOT", bytes(LARGEST_TABLE)),
        "dmar-small-nodes": _dmar(unknown * (room // len(unknown))),
        "dmar-scopes": _dmar(unit, unit),
        "dmar-paths": _dmar(paths, paths),
        "ivrs-entries": _ivrs(_one(ivrs.Ivhd10, entries, type=0x10, device_id=2)),
        "iort-mappings-many": _iort(blocks),
        "iort-names": _iort([named] * 15),
    }


def _short() -> dict[str, bytes]:
    whole = _viot([_one(viot.VirtioPciIommu, type=3, bdf=8)])
    return {
        "no-header": whole[:20],
        "signature": whole[:4],
        "less": whole[:3],
        "no-fixed-part": seal(whole[:40]),
        "facs": b"FACS" + whole[4:],
        "other": _table(b"SSDT", bytes(64)),
        "strange": b"\xff\\n\0" + whole[4:],
    }
