"""Have Python's objects come from malloc, where ASan looks, in a program that cannot be told so.

PYTHONMALLOC=malloc says it to an interpreter. One that PyInstaller packs reads no variables.
"""

from __future__ import annotations

import ctypes
from typing import Final

_RAW: Final = 0
_OF_OBJECTS: Final = (1, 2)
"""Domains of CPython's allocators (PyMemAllocatorDomain): what is malloc always, and the others."""


class _Allocator(ctypes.Structure):
    """Is a PyMemAllocatorEx, its functions as addresses."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("ctx", "malloc", "calloc", "realloc", "free")]


def is_malloc() -> bool:
    """Say whether each new object is a piece of memory that malloc knows."""
    raw = _read(_RAW)
    return all(
        (found.malloc, found.calloc) == (raw.malloc, raw.calloc)
        for found in map(_read, _OF_OBJECTS)
    )


def use_malloc() -> None:
    """Take memory for objects from malloc from now on.

    What was there before goes back to where it came from: the interpreter's own `free` and
    `realloc` stay, which hand on what is not theirs (Objects/obmalloc.c, since CPython 3.2).
    """
    raw = _read(_RAW)
    for domain in _OF_OBJECTS:
        mixed = _read(domain)
        mixed.ctx, mixed.malloc, mixed.calloc = raw.ctx, raw.malloc, raw.calloc
        ctypes.pythonapi.PyMem_SetAllocator(domain, ctypes.byref(mixed))


def _read(domain: int) -> _Allocator:
    found = _Allocator()
    ctypes.pythonapi.PyMem_GetAllocator(domain, ctypes.byref(found))
    return found
