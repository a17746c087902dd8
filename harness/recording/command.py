"""Turn a user's QEMU command line into one that can be recorded, or say why it cannot be.

Nothing here runs anything: words in, words out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import HarnessError

RAM_ID = "dmarewind-ram"
QMP_ID = "dmarewind-qmp"
TRACE_PATTERNS = ("vtd_*", "virtio_iommu_*")
UNITS = {"intel-iommu": 0xFED9_0000, "virtio-iommu-pci": 0, "virtio-iommu": 0}
"""The devices that can be recorded, and where their registers are; 0: where the guest puts them."""
GIB = 1 << 30

# Options without a value (qemu-options.hx); every other option takes the next word.
_FLAGS = frozenset(
    """
    S async-teardown cpu-help curses daemonize enable-kvm enable-sync-profile full-screen h help
    jitdump mem-prealloc no-acpi no-fd-bootchk no-hpet no-reboot no-shutdown no-user-config
    nodefaults nographic only-migratable perfmap portrait preconfig s semihosting singlestep
    snapshot usb version win2k-hack xen-attach xen-domid-restrict
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Option:
    """Hold one option of a command line: its name without dashes, and its value."""

    name: str
    value: str | None = None


def parse(words: Sequence[str]) -> list[Option]:
    """Split a command line, without the program, into options; a lone image has the name ""."""
    options = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            options.append(Option("", word))
            continue
        name = word[2:] if word.startswith("--") else word[1:]
        value = None if name in _FLAGS else next(rest, None)
        options.append(Option(name, value))
    return options


def unparse(options: Iterable[Option]) -> list[str]:
    """Return the words of options."""
    words = []
    for option in options:
        if option.name:
            words.append(f"-{option.name}")
        if option.value is not None:
            words.append(option.value)
    return words


def properties(text: str, implied: str) -> dict[str, str]:
    """Split ``first,key=value,flag``: the first word belongs to `implied`; ``,,`` is a comma.

    QEMU also takes JSON for -device and -object; values become text.
    """
    if text.startswith("{"):
        try:
            members = json.loads(text)
        except ValueError as error:
            raise HarnessError(f"this is not JSON: {text} ({error})") from error
        switch = {True: "on", False: "off"}
        return {
            key: switch[value] if isinstance(value, bool) else str(value)
            for key, value in members.items()
        }
    found: dict[str, str] = {}
    for index, word in enumerate(re.findall(r"((?:[^,]|,,)*)(?:,|$)", text)):
        key, equals, value = word.replace(",,", ",").partition("=")
        if equals:
            found[key] = value
        elif key:
            found[implied if index == 0 else key] = key if index == 0 else "on"
    return found


def join(members: dict[str, str], implied: str) -> str:
    """Return the text that `properties` splits into members."""

    def escaped(text: str) -> str:
        return text.replace(",", ",,")

    words = [escaped(members[implied])] if implied in members else []
    words += [f"{key}={escaped(value)}" for key, value in members.items() if key != implied]
    return ",".join(words)


LARGEST = 1 << 52
"""Bytes a physical address reaches."""


def size(text: str, unit: str = "B") -> int:
    """Return the bytes that a QEMU size stands for; `unit` is meant when it names none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?|0[xX][0-9a-fA-F]+)([bBkKmMgGtTpPeE]?)", text)
    if match is None:
        raise HarnessError(f"{text!r} is not a size; write 512M or 2G")
    number = int(match[1], 16) if match[1][:2] in ("0x", "0X") else float(match[1])
    scaled = number * 1024 ** "BKMGTPE".index((match[2] or unit).upper())
    if scaled >= LARGEST:
        raise HarnessError(f"{text:.40} is more memory than an address reaches")
    return int(scaled)


@dataclass(frozen=True)
class RamPiece:
    """Say where a piece of the RAM file appears in guest-physical memory."""

    address: int
    length: int
    offset: int


Layout = tuple[RamPiece, ...]


def computed_layout(total: int, below_4g: int = 4 * GIB) -> Layout:
    """Return where QEMU's q35, the machine type with this unit, puts RAM.

    It is split at 2.75 GiB (at 2 GiB when there is more), and the rest begins at 4 GiB; see
    pc_q35.c of QEMU. `record` checks it on the machine.
    """
    low = min(0x8000_0000 if total >= 0xB000_0000 else 0xB000_0000, below_4g, total)
    pieces = [RamPiece(0, low, 0)]
    if total > low:
        pieces.append(RamPiece(4 * GIB, total - low, low))
    return tuple(pieces)


def layout_of_memory_tree(text: str, backend: str) -> Layout:
    """Read the layout from the answer to ``info mtree -f``; empty when it does not tell.

    Only the view of the processors' memory is used. RAM under the firmware (0xc0000 to 1 MiB) is
    hidden at power-on and counted as RAM: the guest can uncover it.
    """
    for view in text.split("FlatView #"):
        if 'AS "memory"' in view:
            break
    else:
        return ()
    ends: dict[int, tuple[int, int]] = {}
    # A region's name is that of the backend's last part, or a path to it.
    pattern = rf"([0-9a-f]+)-([0-9a-f]+) \(prio -?\d+, ram\): (?:\S*/)?{re.escape(backend)}"
    for match in re.finditer(pattern + r"(?: @([0-9a-f]+))?\s", view):
        first, last, offset = (int(group or "0", 16) for group in match.groups())
        start, end = ends.get(first - offset, (first, 0))
        ends[first - offset] = min(start, first), max(end, last + 1)
    return tuple(
        RamPiece(start, end - start, start - shift) for shift, (start, end) in sorted(ends.items())
    )


def unit_base_of_memory_tree(text: str) -> int | None:
    """Read where the unit's registers are from the answer to ``info mtree -f``."""
    match = re.search(r"([0-9a-f]+)-[0-9a-f]+ \(prio -?\d+, i/o\): intel_iommu\b", text)
    return int(match[1], 16) if match else None


@dataclass(frozen=True)
class Recorder:
    """Name what a recording adds to a command line.

    ram, log: paths that QEMU can open; qmp: number of an inherited socket.
    """

    plugin: Path
    ram: str
    log: str
    qmp: int
    reads: bool = False


@dataclass
class Command:
    """Hold a checked command line. `options` are the user's, without what record takes over.

    own_ram: there is no RAM file yet, record supplies one of `ram_size` bytes. user_log and
    user_items are what the user asked QEMU to log, and where. base is where the unit's registers
    should be, 0 for a virtio-iommu.
    """

    program: str
    options: list[Option]
    ram_size: int
    layout: Layout
    ram_backend: str = RAM_ID
    ram_path: str | None = None
    ram_offset: int = 0
    paused: bool = False
    user_log: str | None = None
    user_items: list[str] = field(default_factory=list)
    uses_terminal: bool = False
    base: int = UNITS["intel-iommu"]

    @property
    def own_ram(self) -> bool:
        """Say whether record has to supply the RAM file."""
        return self.ram_path is None

    def words(self, recorder: Recorder, layout: Layout, base: int) -> list[str]:
        """Return the command line to run."""
        ram = self.ram_path if self.ram_path is not None else recorder.ram
        options = []
        for option in self.options:
            if option.name == "object" and self.own_ram and option.value is not None:
                members = properties(option.value, "qom-type")
                if members.get("id") == self.ram_backend:
                    options.append(Option("object", _shared_ram(members, recorder.ram)))
                    continue
            options.append(option)
        if self.own_ram and self.ram_backend == RAM_ID:
            members = {"id": RAM_ID, "size": str(self.ram_size)}
            options.append(Option("object", _shared_ram(members, recorder.ram)))
            options.append(Option("machine", f"memory-backend={RAM_ID}"))
        pieces = ";".join(
            f"{piece.address:#x}:{piece.length:#x}:{piece.offset + self.ram_offset:#x}"
            for piece in layout
        )
        plugin = {"file": str(recorder.plugin), "ram": ram, "map": pieces}
        plugin |= {"base": f"{base:#x}"} if base else {"virtio": "on"}
        if recorder.reads:
            plugin["reads"] = "on"
        options += [
            Option("plugin", join(plugin, "file")),
            Option("d", ",".join(dict.fromkeys([*self.user_items, "plugin"]))),
            Option("D", recorder.log),
            *(Option("trace", pattern) for pattern in TRACE_PATTERNS),
            Option("chardev", f"socket,id={QMP_ID},fd={recorder.qmp}"),
            Option("mon", f"chardev={QMP_ID},mode=control"),
        ]
        if not self.paused:
            options.append(Option("S"))
        return [self.program, *unparse(options)]


def _shared_ram(members: dict[str, str], path: str) -> str:
    # What only anonymous memory has: a file's pages are those of its file system.
    dropped = ("qom-type", "hugetlb", "hugetlbsize", "seal", "share")
    kept = {key: value for key, value in members.items() if key not in dropped}
    return join(
        {"qom-type": "memory-backend-file", **kept, "share": "on", "mem-path": path}, "qom-type"
    )


def prepare(argv: Sequence[str]) -> Command:
    """Check a user's command line and take it apart.

    Errors: HarnessError when it cannot be recorded, with the reason and the way out.
    """
    if not argv:
        raise HarnessError(
            "no command; write: dmarewind record -o OUT.trace -- qemu-system-x86_64 …"
        )
    if not re.search(r"qemu-system-(x86_64|amd64)|qemu-kvm", Path(argv[0]).name):
        raise HarnessError(
            f"{argv[0]} is not qemu-system-x86_64; only its emulated units (intel-iommu, "
            "virtio-iommu-pci) can be recorded (for ioctls of a program use --ioctl)"
        )
    options = parse(argv[1:])
    _refuse(options)
    drivers = _drivers(options)
    machine = _machine(options)
    options = _accelerator(options, machine)
    total = _ram_size(options)
    try:
        below = size(machine["max-ram-below-4g"]) if "max-ram-below-4g" in machine else 4 * GIB
    except HarnessError as error:
        raise HarnessError(f"-machine max-ram-below-4g: {error}") from error
    command = Command(
        program=argv[0],
        options=[option for option in options if option.name not in ("d", "D")],
        ram_size=total,
        layout=computed_layout(total, below),
        paused=any(option.name == "S" for option in options),
        base=next((base for name, base in UNITS.items() if name in drivers), UNITS["intel-iommu"]),
        user_items=[
            item
            for option in options
            if option.name == "d" and option.value
            for item in option.value.split(",")
        ],
        uses_terminal=any(
            option.name in ("nographic", "curses") or "stdio" in (option.value or "").split(":")
            for option in options
        ),
    )
    for option in options:
        if option.name == "D":
            command.user_log = option.value
    _backend(command, machine.get("memory-backend"))
    return command


def _refuse(options: list[Option]) -> None:
    reasons: dict[str, str] = {
        "daemonize": "QEMU has to stay a child of record",
        "incoming": "tables made before the recording began are unknown; start the guest anew",
        "loadvm": "tables made before the recording began are unknown; start the guest anew",
        "mem-path": "record supplies the RAM file; to use another one write -object "
        "memory-backend-file,id=ram,size=…,share=on,mem-path=… -machine memory-backend=ram",
        "preconfig": "record needs the machine to be made",
    }
    for option in options:
        if option.name in reasons:
            raise HarnessError(f"cannot record with -{option.name}: {reasons[option.name]}")
        if option.name == "numa" and "memdev=" in (option.value or ""):
            raise HarnessError(
                "cannot record with -numa …,memdev=: RAM has to be one file; leave memdev out"
            )
    drivers = _drivers(options)
    if "pc-dimm" in drivers:
        raise HarnessError("cannot record with -device pc-dimm: RAM has to be one file; use -m")
    # A configuration file may hold the device, QEMU will tell.
    if not drivers & UNITS.keys() and not any(option.name == "readconfig" for option in options):
        raise HarnessError(
            "the machine has no unit to record: add -device intel-iommu,caching-mode=on, or "
            "-device virtio-iommu-pci, before other devices (machine type q35)"
        )


def _drivers(options: list[Option]) -> set[str]:
    return {
        properties(option.value, "driver").get("driver", "")
        for option in options
        if option.name == "device" and option.value
    }


def _machine(options: list[Option]) -> dict[str, str]:
    machine: dict[str, str] = {}
    for option in options:
        if option.name in ("machine", "M") and option.value:
            machine |= properties(option.value, "type")
    return machine


_NO_PLUGINS = (
    "the recorder sees what the emulated processor (TCG) does, and {0} runs it in hardware: "
    "leave {0} out"
)


def _accelerator(options: list[Option], machine: dict[str, str]) -> list[Option]:
    """Return the options with TCG in one thread: stores and trace lines then have one order."""
    chosen = [name for name in machine.get("accel", "").split(":") if name]
    kept = []
    accelerator = {"accel": "tcg"}
    for option in options:
        if option.name == "enable-kvm":
            raise HarnessError(_NO_PLUGINS.format("-enable-kvm"))
        if option.name == "accel" and option.value:
            members = properties(option.value, "accel")
            chosen.append(members.get("accel", ""))
            accelerator |= members
        elif option.name in ("machine", "M") and option.value and "accel" in machine:
            # QEMU takes -accel or -machine accel=, not both.
            members = properties(option.value, "type")
            members.pop("accel", None)
            if members:
                kept.append(Option("machine", join(members, "type")))
        else:
            kept.append(option)
    for name in chosen:
        if name != "tcg":
            raise HarnessError(_NO_PLUGINS.format(f"accelerator {name}"))
    if accelerator.get("thread", "single") != "single":
        raise HarnessError(
            "cannot record with -accel tcg,thread=multi: only one thread gives stores and "
            "translations one order; use thread=single"
        )
    accelerator["thread"] = "single"
    return [Option("accel", join(accelerator, "accel")), *kept]


def _ram_size(options: list[Option]) -> int:
    total = 128 << 20  # QEMU's default for PC machines
    for option in options:
        if option.name == "m" and option.value:
            members = properties(option.value, "size")
            if "size" in members:
                total = size(members["size"], "M")
    if total % 4096 or not total:
        raise HarnessError(f"-m: {total} bytes of RAM are not a number of pages")
    return total


def _backend(command: Command, backend: str | None) -> None:
    """Find out where the user's RAM comes from, if he says."""
    if backend is None:
        return
    for option in command.options:
        if option.name != "object" or option.value is None:
            continue
        members = properties(option.value, "qom-type")
        if members.get("id") != backend:
            continue
        command.ram_backend = backend
        total = size(members.get("size", str(command.ram_size)))
        if total != command.ram_size:
            raise HarnessError(
                f"-m gives {command.ram_size} bytes of RAM and {backend} {total}; make them equal"
            )
        kind = members.get("qom-type", "")
        if kind in ("memory-backend-ram", "memory-backend-memfd"):
            return
        path = members.get("mem-path")
        if kind != "memory-backend-file" or path is None:
            raise HarnessError(f"cannot record with RAM from {kind}; use memory-backend-file")
        if members.get("share") not in ("on", "yes", "true", "y"):
            raise HarnessError(f"RAM has to be visible to the recorder: add share=on to {backend}")
        if Path(path).is_dir():
            raise HarnessError(
                f"the RAM file must have a name of its own: {path} is a folder; give a file in it"
            )
        command.ram_path = path
        command.ram_offset = size(members.get("offset", "0"))
        return
    raise HarnessError(f"-machine memory-backend={backend} names no -object of the command line")
