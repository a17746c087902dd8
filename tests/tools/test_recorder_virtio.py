"""The recorder plugin beside a virtio-iommu: what it reports of features, resets and requests."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from tests.tools.plugin_host import REGISTERS, RESET_VECTOR, Host

Make = Callable[..., Host]

COMMON, CONFIG, NOTIFY, OTHER = (0xFE00_0000 + part * 0x1000 for part in (0, 2, 3, 4))
FEATURE_SELECT, FEATURE, STATUS, SELECT, SIZE, ENABLE, RINGS, RESET = 8, 12, 20, 22, 24, 28, 32, 58
ENTRIES = 8
TABLE, AVAILABLE, USED, DATA, ANSWER, INDIRECT = (page * 0x1000 for page in (1, 2, 3, 4, 5, 6))
NEXT, WRITE, INDIRECT_FLAG = 1, 2, 4
MORE = (1 << 32) - 1


class Device:
    """Hold a guest with a virtio-iommu, and do in its RAM what the device would."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.used = 0

    def common(self, offset: int, value: int, size: int) -> list[str]:
        """Store to the common part of the registers."""
        return self.host.store(COMMON + offset, value, size)

    def start(self, features: int = 0x1_3000_0077, entries: int = ENTRIES, step: int = 4) -> None:
        """Negotiate and enable both queues, with stores of `step` bytes to the addresses."""
        for select in (0, 1):
            self.common(FEATURE_SELECT, select, 4)
            self.common(FEATURE, features >> 32 * select & MORE, 4)
        self.common(STATUS, 11, 1)
        for queue in (1, 0):
            self.common(SELECT, queue, 2)
            self.common(SIZE, entries, 2)
            for index, address in enumerate((TABLE, AVAILABLE, USED)):
                for at in range(0, 8, step):
                    value = (address + queue * 0x10000) >> 8 * at & (1 << 8 * step) - 1
                    self.common(RINGS + 8 * index + at, value, step)
            self.common(ENABLE, 1, 2)

    def write(self, address: int, data: bytes) -> None:
        """Put bytes into RAM without a store, as a device does."""
        self.host.ram[address : address + len(data)] = data

    def describe(
        self, table: int, index: int, address: int, length: int, flags: int = 0, following: int = 0
    ) -> None:
        """Write a descriptor."""
        self.write(table + 16 * index, struct.pack("<QIHH", address, length, flags, following))

    def finish(self, head: int, written: int) -> None:
        """Put a chain into the used ring."""
        self.write(USED + 4 + self.used % ENTRIES * 8, struct.pack("<II", head, written))
        self.used += 1
        self.write(USED + 2, struct.pack("<H", self.used & 0xFFFF))

    def notify(self) -> list[str]:
        """Tell the device of requests; what it answers is in RAM before the store is seen."""
        return self.host.store(NOTIFY, 0, 2)

    def request(self, data: bytes, answer: bytes, room: int) -> None:
        """Use a chain of two descriptors."""
        self.write(DATA, data)
        self.write(ANSWER, answer)
        self.describe(TABLE, 0, DATA, len(data), NEXT, 1)
        self.describe(TABLE, 1, ANSWER, room, WRITE)
        self.finish(0, len(answer))


@pytest.fixture
def device(make: Make) -> Device:
    return Device(make(64, "virtio=on"))


def test_a_request_and_its_answer(device: Device) -> None:
    device.start()
    device.request(b"\1\0\0\0\5\0\0\0\x18" + bytes(11), b"\6\0\0\0", 4)
    assert device.notify() == ["dmr vreq 010000000500000018+b 4 06000000"]
    assert device.notify() == []
    device.request(b"\5", b"\1".ljust(516, b"\0"), 520)
    assert device.notify() == ["dmr vreq 05 208 01+203"]
    device.request(b"\5", b"", 4)
    assert device.notify() == ["dmr vreq 05 4 -"]


def test_many_requests_with_one_notification_and_around_the_ring(device: Device) -> None:
    device.start()
    shown = []
    for number in range(3 * ENTRIES):
        device.write(DATA + number, bytes([number]))
        for index in (2 * number % ENTRIES,):
            device.describe(TABLE, index, DATA + number, 1, NEXT, index + 1)
            device.describe(TABLE, index + 1, ANSWER, 4, WRITE)
            device.finish(index, 4)
        shown.append(f"dmr vreq {number:02x} 4 00000000")
        if number % 3 == 2:
            assert device.notify() == shown
            shown = []


def test_a_chain_in_pieces_and_an_indirect_one(device: Device) -> None:
    device.start()
    device.write(DATA, b"abcdef")
    device.write(0x7FFE, b"wxyz")  # over the end of a page
    for table in (TABLE, INDIRECT):
        device.describe(table, 0, DATA, 2, NEXT, 3)
        device.describe(table, 3, DATA + 2, 4, NEXT, 1)
        device.describe(table, 1, 0x7FFE, 4, WRITE | NEXT, 2)
        device.describe(table, 2, ANSWER, 4, WRITE)
    device.finish(0, 5)
    line = "dmr vreq 616263646566 8 7778797a00"
    assert device.notify() == [line]
    device.describe(TABLE, 5, INDIRECT, 64, INDIRECT_FLAG)
    device.finish(5, 5)
    assert device.notify() == [line]


def test_features_are_told_when_they_are_settled(device: Device) -> None:
    device.start(features=0x1_3000_0057)
    assert device.host.lines == ["dmr begin 1", "dmr vfeat 130000057"]
    assert device.common(STATUS, 15, 1) == []


def test_a_reset_forgets_the_queue(device: Device) -> None:
    device.start()
    assert device.common(STATUS, 0, 1) == ["dmr vrst"]
    device.request(b"\1", b"", 4)
    assert device.notify() == []
    device.used = 0
    device.start()
    device.request(b"\2", b"", 4)
    assert device.notify() == ["dmr vreq 02 4 -"]
    device.host.execute(RESET_VECTOR)
    device.request(b"\3", b"", 4)
    assert device.notify() == []


@pytest.mark.parametrize("step", [1, 2, 4, 8])
def test_addresses_come_in_pieces_of_any_size(device: Device, step: int) -> None:
    device.start(step=step)
    device.request(b"\1", b"", 4)
    assert device.notify() == ["dmr vreq 01 4 -"]


def test_a_queue_may_be_reset_alone(device: Device) -> None:
    device.start()
    device.common(RESET, 1, 2)
    device.request(b"\1", b"", 4)
    assert device.notify() == []


def test_stores_to_the_config_space(device: Device) -> None:
    assert device.host.store(CONFIG + 36, 1, 1) == ["dmr vcfg 24 1 1"]
    assert device.host.store(CONFIG + 32, 1 << 32, 8) == ["dmr vcfg 20 8 100000000"]
    assert device.host.store(OTHER + 36, 1, 1) == []
    assert device.host.store(REGISTERS + 0x20, 1, 8) == []


def test_without_the_argument_nothing_is_followed(make: Make) -> None:
    device = Device(make())
    device.start()
    device.request(b"\1", b"", 4)
    assert device.notify() == [] and device.host.store(CONFIG + 36, 1, 1) == []


def test_a_long_request_is_cut(device: Device) -> None:
    device.start()
    device.write(0, b"\xff" * 4096)
    device.describe(TABLE, 0, 0, MORE, NEXT, 1)
    device.describe(TABLE, 1, 0, MORE, NEXT, 2)
    device.describe(TABLE, 2, ANSWER, MORE, WRITE)
    device.finish(0, 4)
    (line,) = device.notify()
    read, room, answer = line.split()[2:]
    assert (read, room, answer) == ("ff" * 2048, f"{MORE:x}", "00000000")


Spoil = Callable[[Device], None]


def loop(device: Device) -> None:
    device.describe(TABLE, 1, ANSWER, 4, WRITE | NEXT, 0)


def outside(device: Device) -> None:
    device.describe(TABLE, 0, 64 << 12, 4, NEXT, 1)


def half_outside(device: Device) -> None:
    device.describe(TABLE, 0, (64 << 12) - 2, 4, NEXT, 1)


def beyond_the_table(device: Device) -> None:
    device.describe(TABLE, 0, DATA, 4, NEXT, ENTRIES)


def broken_indirect(device: Device) -> None:
    device.describe(TABLE, 0, INDIRECT, 17, INDIRECT_FLAG)


def empty_indirect(device: Device) -> None:
    device.describe(TABLE, 0, INDIRECT, 0, INDIRECT_FLAG)


def more_than_room(device: Device) -> None:
    device.describe(TABLE, 1, ANSWER, 3, WRITE)


def long_answer(device: Device) -> None:
    device.describe(TABLE, 1, ANSWER, MORE, WRITE)
    device.write(USED + 8, struct.pack("<I", MORE))


def wrong_head(device: Device) -> None:
    device.write(USED + 4, struct.pack("<I", ENTRIES))


def far_ahead(device: Device) -> None:
    device.write(USED + 2, struct.pack("<H", ENTRIES + 1))


@pytest.mark.parametrize(
    "spoil",
    [
        *(loop, outside, half_outside, beyond_the_table, broken_indirect, empty_indirect),
        *(more_than_room, long_answer, wrong_head, far_ahead),
    ],
)
def test_what_makes_no_sense_ends_the_recording(device: Device, spoil: Spoil) -> None:
    device.start()
    device.request(b"\1\0\0\0", bytes(4), 4)
    spoil(device)
    (line,) = device.notify()
    assert line.startswith("dmr lost ")
    device.request(b"\1\0\0\0", bytes(4), 4)
    assert device.notify() == []


@pytest.mark.parametrize(
    ("features", "entries", "reason"),
    [
        (1 << 34 | 1 << 32, ENTRIES, "packed ring"),
        (1 << 32, 2048, "size of the virtio-iommu's queue"),
        (1 << 32, 7, "size of the virtio-iommu's queue"),
    ],
)
def test_queues_that_cannot_be_followed(
    device: Device, features: int, entries: int, reason: str
) -> None:
    device.start(features, entries)
    assert device.host.lines[-1].startswith("dmr lost ") and reason in device.host.lines[-1]
