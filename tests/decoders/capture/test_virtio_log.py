"""What a QEMU log tells of a virtio-iommu: each line, and requests put together from two lines."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from decoders.bytewise import build
from decoders.capture.qemu_log import QemuLogDecoder, hints
from decoders.capture.virtio_events import VIRTIO_INTERNAL, VIRTIO_LINES
from decoders.capture.virtio_log import HELD_LIMIT
from decoders.events import (
    Access,
    AccessKind,
    Clock,
    ConfigSpace,
    DeviceReset,
    Event,
    Fault,
    FaultReport,
    Features,
    Gap,
    RegWrite,
    Request,
    Reset,
    Translation,
)
from decoders.virtio_iommu.config import encode_config
from decoders.virtio_iommu.requests import encode_request
from decoders.virtio_iommu.structures import Attach, Config, Detach, Map, Probe, Unmap

GOLDEN = Path(__file__).parents[2] / "golden"
OK = bytes(4)
U64 = (1 << 64) - 1

ATTACH = encode_request(build(Attach, type=1, domain=5, endpoint=24))
DETACH = encode_request(build(Detach, type=2, domain=5, endpoint=24))
MAP = encode_request(
    build(Map, type=3, domain=5, virt_start=0x1000, virt_end=0x1FFF, phys_start=0x9000, flags=3)
)
UNMAP = encode_request(build(Unmap, type=4, domain=5, virt_start=0x1000, virt_end=0x1FFF))
PROBE = encode_request(build(Probe, type=5, endpoint=24))
REGION = bytes.fromhex("0100140001000000 0000e0fe00000000 ffffeffe00000000")
CONFIG = build(
    Config,
    page_size_mask=0xFFFF_FFFF_FFFF_F000,
    input_range_end=U64,
    domain_range_end=0xFFFF_FFFF,
    probe_size=512,
    bypass=1,
)

ATTACH_LINE = "virtio_iommu_attach domain=5 endpoint=24"
DETACH_LINE = "virtio_iommu_detach domain=5 endpoint=24"
MAP_LINE = "virtio_iommu_map domain=5 virt_start=0x1000 virt_end=0x1fff phys_start=0x9000 flags=3"
UNMAP_LINE = "virtio_iommu_unmap domain=5 virt_start=0x1000 virt_end=0x1fff"
REGION_LINE = "virtio_iommu_fill_resv_property dev= 24, type=1 start=0xfee00000 end=0xfeefffff"
CONFIG_LINE = (
    "virtio_iommu_get_config page_size_mask=0xfffffffffffff000 input range start=0x0"
    " input range end=0xffffffffffffffff domain range start=0 domain range end=4294967295"
    " probe_size=0x200 bypass=0x1"
)
TRANSLATE = "virtio_iommu_translate mr=virtio-iommu-memory-region-2-24 rid=24 addr={} flag={}"
OUT = "virtio_iommu_translate_out 0x1234 -> 0x9234 for sid=24"
NO_MAPPING = "virtio_iommu_report_fault FAULT reason=2 flags=256 endpoint=24 address =0x1234"


def decode(*lines: str) -> tuple[list[Event], QemuLogDecoder]:
    decoder = QemuLogDecoder()
    events = [*decoder.feed("".join(f"{line}\n" for line in lines).encode()), *decoder.finish()]
    assert decoder.lines == len(lines)
    assert decoder.lines == (
        decoder.blank + decoder.counts.total() + decoder.malformed.total() + decoder.unknown.total()
    )
    return events, decoder


def recorded(*lines: str) -> tuple[list[Event], QemuLogDecoder]:
    return decode("dmr begin 1", *lines)


def told(request: bytes, answer: bytes = OK, room: int = 4) -> str:
    """Return the recorder's line for a request."""
    return f"dmr vreq {request.hex() or '-'} {room:x} {answer.hex() or '-'}"


def access(outcome: Translation | Fault | None, kind: AccessKind = AccessKind.READ) -> Access:
    return Access(24, None, 0x1234, kind, outcome)


# --- one line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("virtio_iommu_get_features device supports features=0x77", Features(0x77, 0)),
        (CONFIG_LINE, ConfigSpace(encode_config(CONFIG))),
        (
            CONFIG_LINE.removesuffix(" bypass=0x1"),  # 6.2
            ConfigSpace(encode_config(CONFIG)[:36] + bytes(4)),
        ),
        (
            "virtio_iommu_get_config page_size_mask=0xfffffffffffff000 start=0x0"
            " end=0xffffffffffffffff domain_range=-1 probe_size=0x200",  # 5.0
            ConfigSpace(encode_config(CONFIG)[:36] + bytes(4)),
        ),
        ("virtio_iommu_set_config bypass=0x1", RegWrite(36, 1, 1)),
        ("virtio_iommu_device_reset reset!", DeviceReset()),
        ("virtio_iommu_device_reset_exit reset!", Reset()),
        ("virtio_iommu_system_reset system reset!", Reset()),
        (NO_MAPPING, FaultReport(2, 0x100, 24, 0x1234)),
        (OUT, access(Translation(0x9234, 0), AccessKind.UNKNOWN)),
        (TRANSLATE.format("0x1234", 1), access(None)),
        (TRANSLATE.format("0x1234", 2), access(None, AccessKind.WRITE)),
        (TRANSLATE.format("0x1234", 3), access(None, AccessKind.UNKNOWN)),
        (ATTACH_LINE, Request(ATTACH, 4, None)),
        (DETACH_LINE, Request(DETACH, 4, None)),
        (MAP_LINE, Request(MAP, 4, OK)),
        (UNMAP_LINE, Request(UNMAP, 4, None)),
        (
            "virtio_iommu_attach domain=-1 endpoint=-2147483648",
            Request(bytes.fromhex("01000000 ffffffff 00000080") + bytes(8), 4, None),
        ),
    ],
)
@pytest.mark.parametrize("prefix", ["", "7@1.000001:", "2026-11-21T08:30:00.000001Z "])
def test_a_line_by_itself(prefix: str, line: str, expected: Event) -> None:
    events, decoder = decode(prefix + line)
    assert events == [Clock(0)] * bool(prefix) + [expected]
    assert decoder.counts == {line.split()[0]: 1}
    assert decode(f"{prefix}{line}\r")[0] == events


def test_lines_that_become_nothing() -> None:
    names = sorted(name.decode() for name in VIRTIO_INTERNAL)
    quiet = [
        "virtio_iommu_get_endpoint Alloc endpoint=24",
        "virtio_iommu_put_endpoint Free endpoint=24",
        "virtio_iommu_set_config page_size_mask=0x1 start=0x0 end=0x0 domain_bits=5 probe_size=0x0",
        REGION_LINE,  # how large the answer was is not known
    ]
    events, decoder = decode(*(f"{name} whatever 0x1" for name in names), *quiet)
    assert events == []
    assert decoder.internal == Counter(names)


@pytest.mark.parametrize("name", sorted(name.decode() for name in VIRTIO_LINES))
def test_a_damaged_line_is_a_gap(name: str) -> None:
    for rest in ("", "x", "reset!x", "domain=5 endpoint=99999999999", "bypass=0x100", "\xff"):
        events, decoder = decode(f"{name} {rest}")
        assert events == [Gap(f"malformed {name} in line 1")]
        assert decoder.malformed == {name: 1}


@pytest.mark.parametrize(
    "rest",
    [
        *("vreq", "vreq 04 4", "vreq 04 4 00 00", "vreq 0 4 -", "vreq 04 4 0000000000"),
        *("vreq 04 4 +5", "vreq 04+10000 4 -", "vreq 04 100000000 -", "vreq 04 -1 -"),
        *("vfeat", "vfeat x", "vcfg 24 1", "vcfg 24 1 100", "vcfg 24 3 0", "vrst 1"),
    ],
)
def test_a_damaged_line_of_the_recorder_is_a_gap(rest: str) -> None:
    events, decoder = recorded(f"dmr {rest}")
    assert [type(event) for event in events] == [Gap]
    assert decoder.malformed.total() == 1


# --- accesses ------------------------------------------------------------------------------------


def test_an_access_and_its_outcome() -> None:
    read = TRANSLATE.format("0x1234", 1)
    assert decode(read, OUT)[0] == [access(Translation(0x9234, 0))]
    report = FaultReport(2, 0x100, 24, 0x1234)
    assert decode(read, NO_MAPPING)[0] == [access(Fault(2)), report]
    assert decode(read, "virtio_iommu_put_domain Free domain=5", "noise", OUT)[0] == [
        access(Translation(0x9234, 0))
    ]
    assert decode(read, read, OUT)[0] == [access(None), access(Translation(0x9234, 0))]


def test_the_outcome_of_another_access_is_not_taken() -> None:
    """Devices with threads of their own are translated for at the same time."""
    first, second = TRANSLATE.format("0x1234", 1), TRANSLATE.format("0x5678", 2)
    assert decode(first, second, OUT)[0] == [
        access(None),
        Access(24, None, 0x5678, AccessKind.WRITE, None),
        access(Translation(0x9234, 0), AccessKind.UNKNOWN),
    ]
    other = NO_MAPPING.replace("endpoint=24", "endpoint=25")
    assert decode(first, other)[0] == [access(None), FaultReport(2, 0x100, 25, 0x1234)]


def test_an_interrupt_passes_without_a_word() -> None:
    msi = TRANSLATE.format("0xfee01004", 2)
    passed = Access(24, None, 0xFEE01004, AccessKind.WRITE, Translation(0xFEE01004, 0))
    unknown = Access(24, None, 0xFEE01004, AccessKind.WRITE, None)
    attached = "virtio_iommu_get_endpoint Alloc endpoint=24"
    detached = "virtio_iommu_put_endpoint Free endpoint=24"
    assert decode(REGION_LINE, attached, msi)[0] == [passed]
    # Refused without a report, perhaps: nobody has attached it, or nothing is reserved there.
    assert decode(REGION_LINE, msi)[0] == [unknown]
    assert decode(REGION_LINE, attached, detached, msi)[0] == [unknown]
    assert decode(attached, msi)[0] == [unknown]
    assert decode(REGION_LINE.replace("type=1", "type=0"), attached, msi)[0] == [unknown]


# --- requests ------------------------------------------------------------------------------------


def test_the_line_gives_the_place_and_the_recorder_the_content() -> None:
    bypass = ATTACH[:12] + b"\x01" + ATTACH[13:]
    events, decoder = recorded(
        ATTACH_LINE,
        *(TRANSLATE.format("0x1234", 1), OUT),
        "virtio_iommu_device_status driver status = 15",
        MAP_LINE,
        TRANSLATE.format("0x1234", 2),
        told(bypass),
        told(MAP),
        UNMAP_LINE,
        told(UNMAP, b"\x05\0\0\0"),
    )
    assert events == [
        Request(bypass, 4, OK),
        access(Translation(0x9234, 0)),
        Request(MAP, 4, OK),
        access(None, AccessKind.WRITE),
        Request(UNMAP, 4, b"\x05\0\0\0"),
    ]
    assert decoder.problem_count == 0


def test_requests_without_a_line_stand_in_their_order() -> None:
    """A MAP that failed, a PROBE without regions, an unknown type, one that is too short."""
    silent = [
        (MAP, b"\x06\0\0\0"),
        (PROBE, bytes(516)),
        (b"\x09\0\0\0", b"\x02\0\0\0"),
        (ATTACH[:19], b"\x04\0\0\0"),
        (b"", b""),
    ]
    lines = [told(data, answer, 516) for data, answer in silent]
    events, decoder = recorded(ATTACH_LINE, OUT, *lines[:2], told(ATTACH), *lines[2:])
    requests = [Request(data, 516, answer) for data, answer in silent]
    outcome = access(Translation(0x9234, 0), AccessKind.UNKNOWN)
    assert events == [*requests[:2], Request(ATTACH, 4, OK), outcome, *requests[2:]]
    assert decoder.problem_count == 0


def test_probe_has_a_line_for_each_region() -> None:
    second = REGION_LINE.replace("0xfee", "0x1").replace("type=1", "type=0")
    answer = REGION + bytes.fromhex("01001400 00000000 0000010000000000 ffff0f0100000000")
    answer = answer.ljust(516, b"\0")
    events, decoder = recorded(
        *(REGION_LINE, second, REGION_LINE, second),
        *(told(PROBE, answer, 516), told(PROBE, answer, 516)),
        *(REGION_LINE, told(PROBE, b"\x03\0\0\0", 16)),
    )
    assert events == [
        *[Request(PROBE, 516, answer)] * 2,
        Request(PROBE, 16, b"\x03\0\0\0"),  # no room
    ]
    assert decoder.problem_count == 0


def test_zeros_may_be_counted() -> None:
    events, _ = recorded("dmr vreq 05+47 204 +204", "dmr vreq - 0 -")
    assert events == [Request(b"\5".ljust(72, b"\0"), 516, bytes(516)), Request(b"", 0, b"")]


def test_a_request_that_only_one_side_knows_is_a_problem() -> None:
    events, decoder = recorded(ATTACH_LINE, MAP_LINE, told(MAP), told(UNMAP))
    assert events == [Request(ATTACH, 4, None), Request(MAP, 4, OK), Request(UNMAP, 4, OK)]
    assert [problem.text for problem in decoder.problems] == [
        "the recorder did not tell of the request of line 2",
        "the recorder saw UNMAP 0x5, 0x1000, 0x1fff, the unit did not",
    ]


def test_the_wait_for_the_recorder_is_bounded() -> None:
    lines = [TRANSLATE.format("0x1234", 1), OUT] * (HELD_LIMIT + 1)
    events, decoder = recorded(ATTACH_LINE, *lines, MAP_LINE, told(ATTACH))
    assert events[0] == Request(ATTACH, 4, None)
    # From there on the log is read as one without the recorder's lines.
    assert events[-1] == Request(MAP, 4, OK) and len(events) == HELD_LIMIT + 3
    assert decoder.problem_count == 1


def test_content_that_fits_no_place_takes_no_time() -> None:
    """Every place is looked at once, however many lines ask for one that is not there."""
    lines = [MAP_LINE] * (HELD_LIMIT - 1) + [told(DETACH)] * HELD_LIMIT
    start = time.process_time()
    _, decoder = recorded(*lines)
    assert time.process_time() - start < 5  # a search for each would take minutes
    assert decoder.problem_count == HELD_LIMIT


def test_what_waits_at_the_end_was_cut_off() -> None:
    events, decoder = recorded(MAP_LINE, OUT)
    outcome = access(Translation(0x9234, 0), AccessKind.UNKNOWN)
    assert events == [Request(MAP, 4, OK), outcome]
    assert decoder.problem_count == 0
    events, _ = recorded(MAP_LINE, "dmr lost packed ring", UNMAP_LINE)
    assert events == [Request(MAP, 4, OK), Gap("packed ring"), Request(UNMAP, 4, None)]


def test_a_log_without_a_recorder_shows_probe_when_its_size_is_known() -> None:
    events, _ = decode(CONFIG_LINE, REGION_LINE, ATTACH_LINE)
    answer = REGION.ljust(516, b"\0")
    assert events[1:] == [Request(PROBE, 516, answer), Request(ATTACH, 4, None)]


# --- life of the device --------------------------------------------------------------------------


def test_config_is_told_when_it_has_changed() -> None:
    events, _ = decode(
        *(CONFIG_LINE, CONFIG_LINE, "virtio_iommu_set_config bypass=0x0"),
        CONFIG_LINE.replace("bypass=0x1", "bypass=0x0"),
        *("virtio_iommu_system_reset system reset!", CONFIG_LINE),
    )
    config = ConfigSpace(encode_config(CONFIG))
    assert events == [config, RegWrite(36, 1, 0), Reset(), config]


SYSTEM_RESET = "virtio_iommu_system_reset system reset!"
RESET_EXIT = "virtio_iommu_device_reset_exit reset!"


def test_a_reset_of_the_machine_is_one_event() -> None:
    events, _ = decode(SYSTEM_RESET, "virtio_iommu_device_status driver status = 0", RESET_EXIT)
    assert events == [Reset()]


def test_a_reset_of_the_device_that_its_driver_did_not_ask_for_ends_domains() -> None:
    events, _ = recorded(SYSTEM_RESET, RESET_EXIT, "dmr vfeat 57", "dmr vrst", RESET_EXIT)
    assert events == [Reset(), Features(0x57, 0x57), DeviceReset(), Reset()]


@pytest.mark.parametrize(
    "write",
    [
        ("virtio_iommu_set_config bypass=0x0", "dmr vcfg 24 1 0"),
        ("dmr vcfg 24 1 0",),
    ],
)
def test_bypass_outlives_a_reset_of_the_device_alone(write: tuple[str, ...]) -> None:
    events, _ = recorded(SYSTEM_RESET, *write, RESET_EXIT, SYSTEM_RESET, RESET_EXIT)
    bypass = RegWrite(36, 1, 0)
    assert events == [Reset(), bypass, Reset(), bypass, Reset()]


def test_features_are_accepted_and_forgotten() -> None:
    events, decoder = recorded(
        "virtio_iommu_get_features device supports features=0x77",
        "dmr vfeat 57",
        "dmr vrst",
        "virtio_iommu_get_features device supports features=0x77",
    )
    assert events == [Features(0x77, 0), Features(0x77, 0x57), DeviceReset(), Features(0x77, 0)]
    assert hints(decoder)["features"] == "0x77"
    assert recorded("dmr vfeat 57")[0] == [Features(0x57, 0x57)]


def test_a_store_to_the_config_space_is_told_twice() -> None:
    assert recorded("virtio_iommu_set_config bypass=0x0", "dmr vcfg 24 1 0")[0] == [
        RegWrite(36, 1, 0)
    ]
    # The device refuses other values without a line.
    assert recorded("dmr vcfg 24 1 2")[0] == [RegWrite(36, 1, 2)]
    events, decoder = recorded("virtio_iommu_set_config bypass=0x0", "dmr vcfg 20 8 100000000")
    assert events == [RegWrite(36, 1, 0)]
    assert "took bypass 0x0" in decoder.problems[0].text


def test_a_real_log() -> None:
    decoder = QemuLogDecoder()
    data = (GOLDEN / "qemu-virtio-iommu.log").read_bytes()
    events = [*decoder.feed(data), *decoder.finish()]
    assert not decoder.unknown and not decoder.malformed and not decoder.problems
    requests = [event for event in events if isinstance(event, Request)]
    assert len(requests) == decoder.counts["dmr vreq"]
    assert all(event.answer is not None for event in requests)
    faults = [event for event in events if isinstance(event, FaultReport)]
    assert {event.reason for event in faults} == {0, 2}
    refused = [e for e in events if isinstance(e, Access) and isinstance(e.outcome, Fault)]
    assert len(faults) == len(refused) == decoder.counts["virtio_iommu_report_fault"]
    found = hints(decoder)
    assert (found["dialect"], found["unit"]) == ("qemu-10.0", "virtio-iommu")
    assert found["features"] == "0x10179000077" and len(found["config"]) == 80


def test_long_properties_are_not_made_up() -> None:
    lines = [CONFIG_LINE.replace("0x200", "0xffffffff"), *[REGION_LINE] * 100]
    probes = [event for event in decode(*lines)[0] if isinstance(event, Request)]
    assert len(probes) == 100
    assert {(probe.room, probe.answer) for probe in probes} == {(0xFFFF_FFFF, None)}
