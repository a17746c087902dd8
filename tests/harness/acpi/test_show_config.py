"""Tests of `dmarewind show --virtio-config`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import cli
from tests.writers import config_space as w

FINE, FINDING, TROUBLE = 0, 1, 2
V3 = w.v3([w.v3_pci(0x100, first=0x10, last=0xFF), w.v3_mmio(7, 0xFEB0_0000)])


def show(folder: Path, data: bytes, *options: str) -> int:
    file = folder / "config.bin"
    file.write_bytes(data)
    return cli.main(["show", "--virtio-config", str(file), *options])


def test_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(tmp_path, V3, "--device", "00:02.0") == FINE
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line] == [
        "virtio-iommu config space  72 bytes, form v3",
        "0x0000  config FixedConfig  page_size_mask 0xfffff000, input_range_start 0, "
        "input_range_end 0xffffffffffff, domain_range_start 0, domain_range_end 0xffffffff, "
        "probe_size 0x200",
        "0x0024  topology HeadV3  count 2, offset 0x28",
        "0x0028  item[0] PciRangeV3  type 1, length 0x10, endpoint_start 0x100, segment 0, "
        "bdf_start 0x10, bdf_end 0xff",
        "0x0038  item[1] MmioV3  type 2, length 0x10, endpoint 7, address 0xfeb00000",
        "0000:00:02.0: endpoint 0x100 (config.item[0])",
    ]


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(tmp_path, V3, "--json", "--device", "00:00.0") == FINE
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found[0] == {"form": "v3", "bytes": 72}
    assert found[4]["path"] == "config.item[1]"
    assert found[4]["fields"] == {
        "type": 2,
        "reserved": 0,
        "length": 16,
        "endpoint": 7,
        "address": 0xFEB0_0000,
    }
    assert found[5] == {"device": "0000:00:00.0", "answer": "no IOMMU (not-described, config)"}


def test_the_specifications_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(tmp_path, w.plain(1), "--device", "00:02.0") == FINE
    out = capsys.readouterr().out
    assert "form bypass-config" in out and "probe_size 0x200, bypass 1" in out
    assert "no IOMMU (no-table, config)" in out


def test_a_form_that_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(tmp_path, w.v1(b"", 0), "--form", "v1") == FINE
    assert "form v1" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        show(tmp_path, V3, "--form", "v4")


def test_violations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = w.v3([w.v3_mmio(1, 8), w.v3_mmio(2, 8)])
    assert show(tmp_path, twice) == FINDING
    assert (
        "violation (duplicate): config.item[1]: describes the same device as config.item[0], "
        "at offset 0x38" in capsys.readouterr().out
    )


def test_what_cannot_be_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    circle = w.v1(w.v1_pci(56) + w.v1_pci(40))
    assert show(tmp_path, circle) == TROUBLE
    said = capsys.readouterr()
    assert "item[1] PciRangeV1" in said.out
    assert "config.item[1].next: leads back to config.item[0], at offset 0x3a" in said.err
    assert show(tmp_path, b"short") == TROUBLE
    assert "bit 6 of the features needs 40 bytes" in capsys.readouterr().err
    assert cli.main(["show", "--virtio-config", str(tmp_path / "nothing")]) == TROUBLE
