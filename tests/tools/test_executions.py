"""Executions are added up over runs, and a mistake that a twin runs into stays an open finding."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.errors import HarnessError
from tools.bench.executions import Tally, fuzzers, load, main, open_findings, save


@pytest.mark.clang
@pytest.mark.skipif(find_spec("atheris") is None, reason="Atheris is not installed")
@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("o", "AddressSanitizer: heap-buffer-overflow"),
        ("uuu", "runtime error: signed integer overflow"),
        ("lll", "LeakSanitizer: detected memory leaks"),
    ],
)
def test_a_twin_finds_a_planted_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake: str, said: str
) -> None:
    corpus = tmp_path / "kept.d" / "corpus" / "twin-planted"
    corpus.mkdir(parents=True)
    (corpus / "seed").write_bytes(b"DMR" + mistake.encode())
    words = ["--keep", str(tmp_path / "kept"), "--minutes", "0.01", "--slice", "5", "twin planted"]
    assert main(words) == 1
    assert "1 open findings" in capsys.readouterr().out
    (report,) = (tmp_path / "kept.d" / "found" / "twin-planted").glob("*.report")
    assert said in report.read_text()
    assert load(tmp_path / "kept")["twin planted"].seconds > 0
    # It is there still, and is not looked for again.
    before = (tmp_path / "kept").read_bytes()
    assert main(words) == 1
    assert (tmp_path / "kept").read_bytes() == before


def test_tallies_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    assert load(path) == {}
    save(path, {"twin trace": Tally(5, 1.5).plus(3, 0.25)})
    assert load(path) == {"twin trace": Tally(8, 1.75)}
    for damaged in ("[]", "{", json.dumps({"twin trace": {"runs": 1}})):
        path.write_text(damaged)
        with pytest.raises(HarnessError, match="no tallies"):
            load(path)


def test_what_lies_beside_findings_is_none(tmp_path: Path) -> None:
    found = tmp_path / "found" / "atheris-viot"
    (found / "signatures").mkdir(parents=True)
    (found / "1.report").write_bytes(b"")
    assert open_findings(tmp_path) == []
    (found / "crash-1").write_bytes(b"")
    assert open_findings(tmp_path, "atheris viot") == [found / "crash-1"]
    assert open_findings(tmp_path, "twin acpi") == []


def test_the_planted_one_runs_on_demand_only() -> None:
    assert "twin planted" not in fuzzers(())
    assert list(fuzzers(["twin planted"])) == ["twin planted"]
    with pytest.raises(HarnessError, match="no fuzzer 'twin nothing'"):
        list(fuzzers(["twin nothing"]))
