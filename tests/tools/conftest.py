"""A built plugin, and guests to run it with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from decoders.capture.qemu_log import QemuLogDecoder
from tests.tools.plugin_host import Host, build, compiler


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the plugin and its host in one library."""
    if compiler() is None:
        pytest.skip("no C compiler (cc, gcc or clang)")
    return build(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def make(library: Path) -> Iterator[Callable[..., Host]]:
    """Return a function that makes a guest; in the end all their lines must decode."""
    hosts: list[Host] = []

    def one(pages: int = 64, *arguments: str, at: int = 0) -> Host:
        hosts.append(Host(library, pages, *arguments, at=at))
        return hosts[-1]

    yield one
    for host in hosts:
        decoder = QemuLogDecoder()
        list(decoder.feed("".join(f"{line}\n" for line in host.lines).encode()))
        assert not decoder.unknown and not decoder.malformed
        host.close()
