"""Tests of `dmarewind show --acpi`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from tests.decoders.acpi.blobs import ALL, MADE, QEMU
from tests.writers import acpi as w

FINE, FINDING, TROUBLE = 0, 1, 2


def show(folder: Path, data: bytes, *options: str) -> int:
    file = folder / "tables.bin"
    file.write_bytes(data)
    return cli.main(["show", "--acpi", str(file), *options])


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("path", QEMU, ids=lambda path: path.name)
def test_qemu_tables_are_fine(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "--acpi", str(path)]) == FINE
    out = capsys.readouterr().out
    assert path.suffix[1:].upper() in out and "violation" not in out


def test_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(tmp_path, MADE["dmar"]) == FINE
    out = capsys.readouterr().out.splitlines()
    assert out[1:5] == [
        "DMAR  242 bytes, revision 1, 'TESTER' 'TESTTABL'",
        "0x0024  dmar Dmar  width 0x26, flags 7 (intr_remap x2apic_opt_out "
        "dma_ctrl_platform_opt_in)",
        "0x0030  node[0] Drhd  type 0, length 0x24, flags 0, size 0, segment 0, address 0xfed90000",
        "0x0040    scope[0] DeviceScope  entry_type 1, length 8, flags 0, enumeration_id 0, bus 0",
    ]
    assert "0x00c8    device_name Text  '\\\\_SB.DEV1'" in out


@pytest.mark.parametrize("name", ALL)
def test_json_has_every_field(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = show(tmp_path, ALL[name], "--json")
    found = lines(capsys)
    assert found[0]["bytes"] == len(ALL[name])
    violations = [line for line in found if "violation" in line]
    assert code == (FINDING if violations else FINE)
    offsets = [line["offset"] for line in found if "fields" in line]
    assert offsets == sorted(offsets) and offsets[0] == 0


def test_json_names_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(tmp_path, MADE["iort"], "--json") == FINE
    node = next(line for line in lines(capsys) if line.get("kind") == "RootComplex")
    assert node["path"] == "iort.node[3]"
    assert node["bits"]["ats_attribute"] == {"ats": 1, "pri": 0, "pasid_forwarding": 0}


def test_several_tables_and_text_of_acpidump(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for data in (MADE["dmar"] + MADE["viot"], w.acpidump(MADE["dmar"], MADE["viot"])):
        assert show(tmp_path, data, "--json") == FINE
        signatures = [line["signature"] for line in lines(capsys) if "signature" in line]
        assert signatures == ["DMAR", "VIOT"]


def test_violations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = w.viot([w.virtio_pci(), w.pci_range(64)])
    assert show(tmp_path, broken) == FINDING
    assert (
        "violation (self-reference): viot.node[1].output_node: the node points to itself, "
        "at offset 0x50" in capsys.readouterr().out
    )
    assert show(tmp_path, broken, "--json") == FINDING
    assert lines(capsys)[-1] == {
        "table": 0,
        "violation": "self-reference",
        "path": "viot.node[1].output_node",
        "offset": 0x50,
        "problem": "the node points to itself",
        "fatal": False,
    }


def test_what_cannot_be_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(tmp_path, MADE["dmar"][:90]) == TROUBLE
    said = capsys.readouterr()
    assert "DMAR  90 bytes" in said.out
    assert said.err.startswith("error: ") and "dmar.length: the table has 242 bytes" in said.err
    assert show(tmp_path, b"#!/bin/sh") == TROUBLE
    assert "is no signature of a table" in capsys.readouterr().err
    assert cli.main(["show", "--acpi", str(tmp_path / "nothing")]) == TROUBLE


def test_tables_before_a_broken_one_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(tmp_path, MADE["dmar"] + MADE["viot"] + b"end") == TROUBLE
    out = capsys.readouterr().out
    assert "DMAR" in out and "VIOT" in out


def test_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(tmp_path, MADE["viot"], "--device", "00:02.0") == FINE
    assert (
        "0000:00:02.0: virtio-pci at 0000:00:01.0, endpoint 0x10 (viot.node[2])"
        in capsys.readouterr().out
    )
    assert show(tmp_path, MADE["viot"], "--device", "00:01.0", "--json") == FINE
    answer = {
        "table": 0,
        "device": "0000:00:01.0",
        "answer": "no IOMMU (is-iommu, viot.node[0])",
    }
    assert lines(capsys)[-1] == answer


@pytest.mark.parametrize("words", [[], ["a.trace", "--acpi", "b"]])
def test_a_trace_or_tables(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["show", *words])
    assert caught.value.code == TROUBLE


@pytest.mark.parametrize("name", ALL)
def test_nothing_in_a_table_reaches_a_terminal(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An escape sequence and a line's end may stand wherever text does, or a number."""
    for at in range(0, len(ALL[name]), 4):
        changed = ALL[name][:at] + b"\x1b[2\n" + ALL[name][at + 4 :]
        for data in (changed, w.acpidump(changed)):
            show(tmp_path, data, "--device", "00:02.0")
            said = capsys.readouterr()
            assert (said.out + said.err).replace("\n", "").isprintable(), f"at {at:#x}"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--form", "v1"), "--form means nothing for --acpi"),
        (("--kind", "access"), "--kind means nothing for --acpi"),
        (("--iova", "0x1000"), "--iova means nothing for --acpi"),
        (("--from", "3"), "--from means nothing for --acpi"),
        (("--to", "3"), "--to means nothing for --acpi"),
        (("--entries", "3"), "--entries means nothing for --acpi"),
        (("--device", "0x10000"), "0x10000 is no PCI function"),
    ],
)
def test_options_of_other_things(
    options: tuple[str, ...], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(tmp_path, MADE["dmar"], *options) == TROUBLE
    said = capsys.readouterr()
    assert said.out == "" and problem in said.err
