"""Which machine a recording of VT-d needs, without starting one."""

from __future__ import annotations

from dataclasses import replace

from harness.qemu.pc import ram_address, ram_offset, ram_ranges, ram_size_for
from harness.qemu.vtd_copy import Wanted, placed
from harness.qemu.vtd_options import options_for
from tests.harness.qemu.vtd_story import (
    CAPABILITY,
    EXTENDED,
    HIGH,
)


def test_options_follow_capabilities() -> None:
    assert options_for(CAPABILITY, EXTENDED) == {
        "aw-bits": "48", "caching-mode": "on", "intremap": "on",
    }  # fmt: skip
    assert options_for(0x1D2_008C_222F_0606, 0x8800_00F0_0F4A) == {
        "aw-bits": "48", "intremap": "on", "scalable": "on", "first-stage": "on",
    }  # fmt: skip
    assert options_for(0xD2_008C_2226_0206, 0xF82) == {
        "aw-bits": "39", "intremap": "off", "snoop-control": "on", "pt": "off",
    }  # fmt: skip


def test_devices_stand_where_they_can() -> None:
    place = placed({0x18, 0x1B, 0x100, 0x502, 0x508, 0xFA, 0x00})
    assert place.missing == {0x508, 0xFA, 0x00}
    assert place.buses == {0x08: 1, 0x09: 5}
    assert place.devices == [
        "pcie-root-port,id=port1,chassis=1,addr=0x1.0,multifunction=on",
        "pcie-root-port,id=port5,chassis=5,addr=0x1.1,multifunction=on",
        "rtl8139,addr=0x3.0,multifunction=on",
        "rtl8139,addr=0x3.3,multifunction=on",
        "rtl8139,bus=port1,addr=0x0.0,multifunction=on",
        "rtl8139,bus=port5,addr=0x0.0,multifunction=on",
        "rtl8139,bus=port5,addr=0x0.2,multifunction=on",
    ]
    assert len(placed(range(1 << 16)).devices) <= 2 * 64


def test_ram_is_where_a_q35_has_it() -> None:
    assert ram_size_for(0xFFF) == 1 << 20
    assert ram_size_for(0xC000_0000) is None
    size = ram_size_for(HIGH + 0xFFF)
    assert size is not None
    ranges = ram_ranges(size)
    assert ranges[-1][0] == HIGH
    for start, length in ranges:
        for address in (start, start + length - 1):
            assert ram_address(ram_offset(address), size) == address


def test_machines_are_told_apart() -> None:
    had = Wanted(1, 2, frozenset({3, 4}), 0x5FFF, exact=False)
    assert had.includes(replace(had, sources=frozenset({3}), last_address=0x4FFF))
    for other in (
        replace(had, capability=2),
        replace(had, extended_capability=1),
        replace(had, sources=frozenset({5})),
        replace(had, last_address=0x6FFF),
        replace(had, last_address=0x4FFF, exact=True),
    ):
        assert not had.includes(other), other
