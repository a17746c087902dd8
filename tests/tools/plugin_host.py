"""Run the recorder plugin without QEMU: a guest is a file of RAM, and one store at a time."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "tools/recorder").glob("*.c"))
REGISTERS = 0xFED9_0000
RESET_VECTOR = 0xFFFF_FFF0


class _System(ctypes.Structure):
    _fields_ = [("smp_vcpus", ctypes.c_int), ("max_vcpus", ctypes.c_int)]


class _Version(ctypes.Structure):
    _fields_ = [("min", ctypes.c_int), ("cur", ctypes.c_int)]


class _Info(ctypes.Structure):
    _fields_ = [
        ("target_name", ctypes.c_char_p),
        ("version", _Version),
        ("system_emulation", ctypes.c_bool),
        ("system", _System),
    ]


def compiler() -> str | None:
    """Return a C compiler, if there is one."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def build(folder: Path, *flags: str) -> Path:
    """Compile the plugin together with its host."""
    library = folder / "host.so"
    host = Path(__file__).with_name("plugin_host.c")
    command = [compiler() or "cc", "-std=gnu11", "-g", "-O1", "-fPIC", "-shared", "-pthread"]
    warnings = ["-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", f"-I{ROOT}/tools/recorder"]
    sources = [str(source) for source in [*SOURCES, host]]
    subprocess.run([*command, *warnings, *flags, "-o", str(library), *sources], check=True)
    return library


class Host:
    """Hold one plugin, a guest of `pages` pages, and what the plugin's lines have said so far.

    watched maps page addresses to their content as the lines give it; roles to the (role, level)
    pairs of a page's snapshots since it was watched.
    """

    def __init__(self, library: Path, pages: int, *arguments: str, at: int = 0) -> None:
        # A library is loaded once for each name, and the plugin is full of state.
        own = library.with_name(f"{library.stem}-{os.urandom(6).hex()}.so")
        shutil.copy(library, own)
        self._library = ctypes.CDLL(str(own))
        own.unlink()
        self._library.host_lines.restype = ctypes.c_char_p
        self._fd = os.memfd_create("ram")
        os.ftruncate(self._fd, pages * 4096)
        self.ram = mmap.mmap(self._fd, pages * 4096)
        self.at = at
        self.lines: list[str] = []
        self.watched: dict[int, bytearray] = {}
        self.roles: dict[int, set[tuple[int, int]]] = {}
        info = _Info(b"x86_64", _Version(4, 4), True, _System(1, 1))
        words = [
            f"ram=/proc/self/fd/{self._fd}",
            f"map={at:#x}:{pages * 4096:#x}:0",
            *arguments,
        ]
        argv = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
        self.status = self._library.qemu_plugin_install(
            ctypes.c_uint64(1), ctypes.byref(info), len(words), argv
        )
        if self.status == 0:
            self.lines += self._read()
            self.execute(RESET_VECTOR)

    def close(self) -> None:
        """Free the guest's RAM."""
        self.ram.close()
        os.close(self._fd)

    def _read(self) -> list[str]:
        return str(self._library.host_lines().decode()).splitlines()

    def _follow(self) -> list[str]:
        new = self._read()
        self.lines += new
        for line in new:
            word, verb, *fields = line.split()
            assert word == "dmr", line
            if verb == "snap":
                address, role, level = (int(text, 16) for text in fields[:3])
                page = bytearray(4096)
                for text in fields[3:]:
                    index, value = (int(part, 16) for part in text.split(":"))
                    struct.pack_into("<Q", page, index * 8, value)
                self.watched[address] = page
                self.roles.setdefault(address, set()).add((role, level))
            elif verb == "st":
                address, size, value = (int(text, 16) for text in fields)
                page = self.watched[address & ~0xFFF]
                page[address % 4096 : address % 4096 + size] = value.to_bytes(size, "little")
            elif verb == "rel":
                del self.watched[int(fields[0], 16)]
                del self.roles[int(fields[0], 16)]
        return new

    def execute(self, address: int) -> list[str]:
        """Let the processor run what is at an address."""
        self._library.host_execute(ctypes.c_uint64(address))
        return self._follow()

    def store(self, address: int, value: int, size: int = 8, other_page: int = 0) -> list[str]:
        """Store to RAM or to the unit; a store that leaves its page goes on in other_page."""
        data = value.to_bytes(size, "little")
        inside = min(size, 4096 - address % 4096)
        for place, piece in ((address, data[:inside]), (other_page, data[inside:])):
            if piece and self.at <= place < self.at + len(self.ram):
                self.ram[place - self.at : place - self.at + len(piece)] = piece
        whole = data.ljust(16, b"\0")
        low, high = struct.unpack("<QQ", whole)
        # Virtual pages are neighbours, physical ones need not be.
        self._library.host_store(
            ctypes.c_uint64(0x7000_0000_0000 + address % 4096),
            ctypes.c_uint64(address & ~0xFFF),
            ctypes.c_uint64(other_page),
            ctypes.c_uint(size.bit_length() - 1),
            ctypes.c_uint64(low),
            ctypes.c_uint64(high),
        )
        return self._follow()

    def load(self, address: int, value: int, size: int) -> list[str]:
        """Load from the unit."""
        self._library.host_load(
            ctypes.c_uint64(address), ctypes.c_uint(size.bit_length() - 1), ctypes.c_uint64(value)
        )
        return self._follow()

    def register(self, offset: int, value: int, size: int = 4) -> list[str]:
        """Write a register of the unit."""
        return self.store(REGISTERS + offset, value, size)
