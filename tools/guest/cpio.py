"""Write cpio archives in the "newc" form, which Linux unpacks as its first root file system."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field


@dataclass
class Archive:
    """Collect members; the result depends on nothing but them (no times, no owners).

    The form is documented in Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
    """

    _parts: list[bytes] = field(default_factory=list)
    _inode: int = 0
    _directories: set[str] = field(default_factory=set)

    def directory(self, path: str) -> None:
        """Add a directory, and those above it, once."""
        above = path.rpartition("/")[0]
        if above:
            self.directory(above)
        if path not in self._directories:
            self._directories.add(path)
            self._member(path, stat.S_IFDIR | 0o755, b"")

    def file(self, path: str, data: bytes, *, executable: bool = False) -> None:
        """Add a regular file and the directories above it."""
        above = path.rpartition("/")[0]
        if above:
            self.directory(above)
        self._member(path, stat.S_IFREG | (0o755 if executable else 0o644), data)

    def character_device(self, path: str, major: int, minor: int) -> None:
        """Add a character device node."""
        self._member(path, stat.S_IFCHR | 0o600, b"", major, minor)

    def finish(self) -> bytes:
        """Return the archive."""
        self._member("TRAILER!!!", 0, b"")
        return b"".join(self._parts)

    def _member(self, path: str, mode: int, data: bytes, major: int = 0, minor: int = 0) -> None:
        self._inode += 1
        name = path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        numbers = (self._inode, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name), 0)
        head = b"070701" + b"".join(b"%08x" % number for number in numbers) + name
        for part in (head, data):
            self._parts += [part, bytes(-len(part) % 4)]
