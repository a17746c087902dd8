"""Find the tables of the corpus, and make some of every kind."""

from __future__ import annotations

from pathlib import Path

from tests.writers import acpi as w

CORPUS = Path(__file__).parents[3] / "corpora/acpi"
QEMU = sorted((CORPUS / "qemu").iterdir())

PORT, HERE = (1, 0), (2, 0)


def made() -> dict[str, bytes]:
    """Give sound tables that have every kind of structure between them."""
    its = w.its_group(0, 1)
    smmu_at = 48 + len(its)
    smmu = w.smmu_v3(0x9050000, w.mapping(48))
    iort = w.iort(
        [
            its,
            smmu,
            w.named_component(b"\\_SB.DEV0\0", w.mapping(smmu_at, 0, 16, 0x100)),
            w.root_complex(0, w.mapping(smmu_at), ats=1),
            w.smmu(0x9060000, interrupts=3),
            w.pmcg(0x9070000, smmu_at, w.mapping(48, 0, 1, 7, flags=1)),
            w.reserved_memory(
                [(0x10000, 0x20000), (0x100000, 0x10000)],
                w.mapping(smmu_at, 0, 1, 0x10, flags=1),
                flags=3,
            ),
            w.iwb(0x2F000000, b"\\_SB.IWB0\0", w.mapping(48)),
        ]
    )
    pci = w.iort_node(0x80, (8).to_bytes(4, "little"))
    mmio = w.iort_node(0x81, b"".join(n.to_bytes(8, "little") for n in (0xA000, 0x200, 1, 1 << 32)))
    draft = w.draft_viot(
        w.iort([pci, mmio, w.root_complex(0, w.mapping(48)), w.root_complex(1, w.mapping(68))])
    )
    device = w.scope(1, 0, HERE)
    return {
        "viot": w.viot(
            [
                w.virtio_pci(0, 8),
                w.virtio_mmio(0xA000),
                w.pci_range(48, 0, (0, 0), (0, 0xFFFF)),
                w.pci_range(48, 0x10000, (1, 3), (0, 0xFFFF)),
                w.mmio_endpoint(64, 5, 0xB000),
            ]
        ),
        "viot-draft": draft,
        "viot-padding": w.viot([w.virtio_pci()], offset=56),
        "iort": iort,
        "dmar": w.dmar(
            [
                w.drhd(0xFED90000, device, w.scope(2, 0, PORT, (0, 0), (3, 1))),
                w.drhd(
                    0xFED91000,
                    *(w.scope(3, 0xF0, (0x1F, 0), enumeration=2), w.scope(4, 0, (0x1F, 1))),
                    w.scope(5, 0, (4, 0), enumeration=1),
                    everything=True,
                ),
                w.rmrr(0x1000, 0x1FFF, device),
                w.atsr(w.scope(2, 0, PORT)),
                w.rhsa(0xFED90000, 1),
                w.andd(1, b"\\_SB.DEV1\0"),
                w.satc(device, required=True),
                w.sidp(device),
            ],
            flags=7,
        ),
        "ivrs": w.ivrs(
            [
                w.ivhd(
                    0xFEB80000,
                    *(w.entry(3, 8), w.entry(4, 0x1FF), w.entry(2, 0x200), w.entry(0)),
                    *(w.alias(0x42, 0x300, 0xA4), w.alias(0x43, 0x400, 0xA4), w.entry(4, 0x4FF)),
                    *(w.extended(0x46, 0x500, 1 << 31), w.special(0, 0xA0, 1)),
                ),
                w.ivhd(0xFEB80000, w.entry(1), w.hid(0xA5, b"AMDI0020", b"\\_SB.UA0"), kind=0x11),
                w.ivhd(0xFEB80000, w.entry(1), w.hid(0xA5, b"AMDI0020"), kind=0x40),
                w.ivmd(0x1000, 0x2000),
                w.ivmd(0x1000, 0x2000, 0x21, device=8),
                w.ivmd(0x1000, 0x2000, 0x22, device=8, last=16),
            ]
        ),
    }


MADE = made()
ALL = {path.name: path.read_bytes() for path in QEMU} | MADE
"""Every table there is, by name."""
