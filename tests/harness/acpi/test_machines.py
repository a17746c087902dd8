"""QEMU's machines make the tables that the corpus has."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from decoders.acpi import validate
from harness.acpi.machines import MACHINES, take
from harness.errors import HarnessError

CORPUS = Path(__file__).parents[3] / "corpora/acpi/qemu"
ROUND = ["x86-intel-ats", "x86-amd-bridges", "x86-virtio-pxb"]
ARM = ["arm-smmuv3-pxb-bypass", "arm-virtio-pxb"]


def kept(name: str) -> dict[str, bytes]:
    return {p.suffix[1:].upper(): p.read_bytes() for p in CORPUS.glob(f"{name}.*")}


def test_the_corpus_has_every_machine() -> None:
    assert {path.name.partition(".")[0] for path in CORPUS.iterdir()} == MACHINES.keys()


def version(qemu: str) -> str:
    shown = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\S+)", shown.stdout)
    return found[1] if found else ""


def check(name: str) -> None:
    command = shlex.split(MACHINES[name])
    found = take(command)
    for table in found.values():
        assert validate(table) == []
    if version(command[0]).startswith("10.0."):  # others may describe the machine in another way
        assert found == kept(name)
    assert found.keys() == kept(name).keys()


@pytest.mark.qemu
@pytest.mark.parametrize("name", ROUND)
def test_x86(name: str) -> None:
    check(name)


@pytest.mark.optional
@pytest.mark.parametrize("name", ARM)
def test_arm(name: str) -> None:
    if shutil.which("qemu-system-aarch64") is None:
        pytest.skip("qemu-system-aarch64 is not installed")
    check(name)


@pytest.mark.qemu
def test_trouble_is_told() -> None:
    with pytest.raises(HarnessError, match="cannot run nothing-like-that"):
        take(["nothing-like-that"])
    with pytest.raises(HarnessError, match="no-such-device"):
        take(shlex.split("qemu-system-x86_64 -display none -device no-such-device"))
