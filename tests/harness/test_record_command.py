"""What `record` makes of a QEMU command line, and which ones it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.recording.command import (
    GIB,
    TRACE_PATTERNS,
    Option,
    Recorder,
    computed_layout,
    join,
    layout_of_memory_tree,
    parse,
    prepare,
    properties,
    size,
    unit_base_of_memory_tree,
    unparse,
)

QEMU = "qemu-system-x86_64"
UNIT = ["-device", "intel-iommu,intremap=on"]
X = ("-machine", "memory-backend=x")
RECORDER = Recorder(Path("/lib/recorder.so"), "/dev/fd/5", "/dev/fd/6", 7)


def words(*arguments: str, recorder: Recorder = RECORDER) -> list[str]:
    """Return the whole command line that is run for the user's arguments."""
    command = prepare([QEMU, *UNIT, *arguments])
    return command.words(recorder, command.layout, 0xFED90000)


def values(found: list[str], name: str) -> list[str]:
    """List the values of an option."""
    return [value for word, value in itertools.pairwise(found) if word == f"-{name}"]


def refusal(*arguments: str) -> str:
    with pytest.raises(HarnessError) as caught:
        prepare([QEMU, *arguments])
    return str(caught.value)


def test_options_come_apart_and_together() -> None:
    line = ["-nographic", "--device", "a,b=c", "-S", "-m", "1G", "disk.img", "-append", "-x y"]
    options = parse(line)
    assert options == [
        Option("nographic"),
        Option("device", "a,b=c"),
        Option("S"),
        Option("m", "1G"),
        Option("", "disk.img"),
        Option("append", "-x y"),
    ]
    assert unparse(options) == ["-nographic", "-device", *line[2:]]


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("q35", {"type": "q35"}),
        ("q35,accel=tcg,smm=off", {"type": "q35", "accel": "tcg", "smm": "off"}),
        ("type=pc", {"type": "pc"}),
        ("accel=kvm:tcg", {"accel": "kvm:tcg"}),
        ("a,,b,path=x,,,y=1", {"type": "a,b", "path": "x,", "y": "1"}),
        ("a,flag", {"type": "a", "flag": "on"}),
        ("", {}),
    ],
)
def test_properties(text: str, members: dict[str, str]) -> None:
    assert properties(text, "type") == members
    assert properties(join(members, "type"), "type") == members


def test_properties_in_json() -> None:
    text = '{"driver": "intel-iommu", "caching-mode": true, "aw-bits": 48}'
    assert properties(text, "driver") == {
        "driver": "intel-iommu",
        "caching-mode": "on",
        "aw-bits": "48",
    }
    assert prepare([QEMU, "-device", text])
    assert "not JSON" in refusal("-device", "{x")


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [("512", "M", 512 << 20), ("2G", "M", 2 << 30), ("1.5g", "M", 3 << 29), ("4096", "B", 4096)],
)
def test_sizes(text: str, unit: str, expected: int) -> None:
    assert size(text, unit) == expected


@pytest.mark.parametrize("text", ["", "G", "1X", "-1", "1 G"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(HarnessError, match="is not a size"):
        size(text)


@pytest.mark.parametrize(
    ("total", "below", "pieces"),
    [
        (GIB, 4 * GIB, [(0, GIB)]),
        (0xAFF00000, 4 * GIB, [(0, 0xAFF00000)]),
        (0xB0000000, 4 * GIB, [(0, 2 * GIB), (4 * GIB, 0x30000000)]),
        (8 * GIB, 4 * GIB, [(0, 2 * GIB), (4 * GIB, 6 * GIB)]),
        (2 * GIB, GIB, [(0, GIB), (4 * GIB, GIB)]),
    ],
)
def test_layout(total: int, below: int, pieces: list[tuple[int, int]]) -> None:
    layout = computed_layout(total, below)
    assert [(piece.address, piece.length) for piece in layout] == pieces
    assert sum(piece.length for piece in layout) == total
    assert [piece.offset for piece in layout] == [0, pieces[0][1]][: len(pieces)]


# `info mtree -f` of QEMU 10.0.2, -machine q35 -m 6000, shortened.
TREE = """\
FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

FlatView #2
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-00000000000bffff (prio 0, ram): dmarewind-ram
  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom
  00000000000e0000-00000000000fffff (prio 0, rom): pc.bios @0000000000020000
  0000000000100000-000000007fffffff (prio 0, ram): dmarewind-ram @0000000000100000
  00000000fed90000-00000000fed9022f (prio 0, i/o): intel_iommu
  00000000fee00000-00000000feefffff (prio 4096, i/o): apic-msi
  0000000100000000-00000001f6ffffff (prio 0, ram): dmarewind-ram @0000000080000000

FlatView #3
 AS "vtd-root", root: vtd-00.0
  0000000000000000-0000000000000fff (prio 0, ram): dmarewind-ram @0000000000700000
"""


def test_the_machine_tells_its_layout() -> None:
    assert layout_of_memory_tree(TREE, "dmarewind-ram") == computed_layout(6000 << 20)
    assert unit_base_of_memory_tree(TREE) == 0xFED90000
    assert layout_of_memory_tree(TREE, "ram") == ()
    assert layout_of_memory_tree("", "dmarewind-ram") == ()
    assert unit_base_of_memory_tree("") is None


def test_what_is_added() -> None:
    found = words("-machine", "q35", "-m", "4G", "-smp", "2")
    assert values(found, "object") == [
        "memory-backend-file,id=dmarewind-ram,size=4294967296,share=on,mem-path=/dev/fd/5"
    ]
    assert values(found, "machine") == ["q35", "memory-backend=dmarewind-ram"]
    assert values(found, "plugin") == [
        "/lib/recorder.so,ram=/dev/fd/5,map=0x0:0x80000000:0x0;0x100000000:0x80000000:0x80000000,"
        "base=0xfed90000"
    ]
    assert values(found, "accel") == ["tcg,thread=single"]
    assert values(found, "d") == ["plugin"]
    assert values(found, "D") == ["/dev/fd/6"]
    assert values(found, "trace") == list(TRACE_PATTERNS)
    assert values(found, "chardev") == ["socket,id=dmarewind-qmp,fd=7"]
    assert found[-1] == "-S"
    assert values(found, "smp") == ["2"]


def test_a_guest_that_is_to_stay_paused_stays_so() -> None:
    found = words("-S")
    assert found.count("-S") == 1
    assert prepare([QEMU, *UNIT, "-S"]).paused


def test_reads_are_asked_for() -> None:
    recorder = Recorder(Path("/a,b/r.so"), "/r", "/l", 7, reads=True)
    (plugin,) = values(words(recorder=recorder), "plugin")
    assert plugin.startswith("/a,,b/r.so,ram=/r,")
    assert plugin.endswith(",reads=on")


def test_logging_of_the_users_own_is_kept() -> None:
    command = prepare([QEMU, *UNIT, "-d", "guest_errors,plugin", "-D", "my.log"])
    assert command.user_log == "my.log"
    found = command.words(RECORDER, command.layout, 0xFED90000)
    assert values(found, "d") == ["guest_errors,plugin"]
    assert values(found, "D") == ["/dev/fd/6"]
    assert values(words("-trace", "e1000e_*"), "trace") == ["e1000e_*", *TRACE_PATTERNS]


@pytest.mark.parametrize(
    ("arguments", "accelerator"),
    [
        ([], "tcg,thread=single"),
        (["-accel", "tcg"], "tcg,thread=single"),
        (["-accel", "tcg,tb-size=64"], "tcg,tb-size=64,thread=single"),
        (["-accel", "tcg,thread=single"], "tcg,thread=single"),
        (["-machine", "q35,accel=tcg"], "tcg,thread=single"),
        (["-M", "accel=tcg"], "tcg,thread=single"),
    ],
)
def test_the_processors_share_one_thread(arguments: list[str], accelerator: str) -> None:
    found = words(*arguments)
    assert values(found, "accel") == [accelerator]
    # -machine accel= and -accel exclude each other.
    assert not any("accel" in value for value in values(found, "machine") + values(found, "M"))


def test_ram_of_the_users_own_is_used() -> None:
    command = prepare(
        [
            QEMU,
            *UNIT,
            *("-object", "memory-backend-file,id=x,size=1G,share=on,mem-path=/shm/r,offset=4096"),
            *("-machine", "q35,memory-backend=x", "-m", "1G"),
        ]
    )
    assert not command.own_ram
    found = command.words(RECORDER, command.layout, 0xFED90000)
    assert len(values(found, "object")) == 1
    assert values(found, "machine") == ["q35,memory-backend=x"]
    assert "ram=/shm/r,map=0x0:0x40000000:0x1000," in values(found, "plugin")[0]


@pytest.mark.parametrize("kind", ["ram", "memfd"])
def test_anonymous_ram_becomes_a_file(kind: str) -> None:
    found = words(
        *("-object", f"memory-backend-{kind},id=x,size=1G,prealloc=on"),
        *("-machine", "q35,memory-backend=x", "-m", "1024"),
    )
    assert values(found, "object") == [
        "memory-backend-file,id=x,size=1G,prealloc=on,share=on,mem-path=/dev/fd/5"
    ]
    assert values(found, "machine") == ["q35,memory-backend=x"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-enable-kvm"], "leave -enable-kvm out"),
        (["-accel", "kvm"], "leave accelerator kvm out"),
        (["-accel", "kvm", "-accel", "tcg"], "leave accelerator kvm out"),
        (["-machine", "q35,accel=kvm:tcg"], "leave accelerator kvm out"),
        (["-accel", "tcg,thread=multi"], "use thread=single"),
        (["-daemonize"], "cannot record with -daemonize"),
        (["-incoming", "defer"], "start the guest anew"),
        (["-loadvm", "x"], "start the guest anew"),
        (["-mem-path", "/dev/hugepages"], "memory-backend-file"),
        (["-numa", "node,memdev=a"], "leave memdev out"),
        (["-device", "pc-dimm,memdev=a"], "pc-dimm"),
        (["-m", "1G1"], "is not a size"),
        (["-m", "0"], "not a number of pages"),
        (["-machine", "q35,max-ram-below-4g=x"], "max-ram-below-4g"),
        (["-machine", "memory-backend=x"], "names no -object"),
        (
            [*X, "-m", "1G", "-object", "memory-backend-file,id=x,size=1G,mem-path=/shm/r"],
            "add share=on to x",
        ),
        (
            [
                *X,
                "-m",
                "2G",
                "-object",
                "memory-backend-file,id=x,size=1G,mem-path=/shm/r,share=on",
            ],
            "make them equal",
        ),
        (
            [*X, "-m", "1G", "-object", "memory-backend-file,id=x,size=1G,mem-path=/,share=on"],
            "is a folder",
        ),
        (
            [*X, "-m", "1G", "-object", "memory-backend-epc,id=x,size=1G"],
            "use memory-backend-file",
        ),
    ],
)
def test_what_cannot_be_recorded_is_refused_with_the_way_out(
    arguments: list[str], reason: str
) -> None:
    assert reason in refusal(*UNIT, *arguments)


def test_a_machine_without_a_unit_is_refused() -> None:
    assert "add -device intel-iommu" in refusal("-machine", "q35")
    assert "-device virtio-iommu-pci" in refusal("-device", "virtio-blk-pci")
    # What a configuration file holds, only QEMU knows.
    assert prepare([QEMU, "-readconfig", "vm.cfg"])


@pytest.mark.parametrize("device", ["virtio-iommu-pci", "virtio-iommu,id=unit,boot-bypass=off"])
def test_a_virtio_iommu_has_no_registers_of_a_known_place(device: str) -> None:
    command = prepare([QEMU, "-machine", "q35", "-device", device])
    assert command.base == 0
    recorder = Recorder(Path("/lib/recorder.so"), "/dev/fd/5", "/dev/fd/6", 7)
    (plugin,) = values(command.words(recorder, command.layout, command.base), "plugin")
    assert plugin.endswith(",virtio=on") and "base=" not in plugin


@pytest.mark.parametrize("argv", [[], ["qemu-system-aarch64", *UNIT], ["ls"]])
def test_another_program_is_refused(argv: list[str]) -> None:
    with pytest.raises(HarnessError, match="qemu-system-x86_64"):
        prepare(argv)


def test_a_terminal_in_use_is_noticed() -> None:
    for arguments in (["-nographic"], ["-serial", "mon:stdio"], ["-serial", "stdio"]):
        assert prepare([QEMU, *UNIT, *arguments]).uses_terminal
    assert not prepare([QEMU, *UNIT, "-serial", "file:stdio.log"]).uses_terminal
