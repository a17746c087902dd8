"""The regress verb: what is kept is replayed, and has to show what is stated beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from fuzzers.campaign.files import Files
from fuzzers.campaign.places import Seen, name_of
from harness.cli import main
from harness.kept import EXPECTED, FUZZ_TARGETS
from harness.minimise.judges import ReplayJudge
from harness.minimise.trace import Trace
from harness.replay import Result, replay
from harness.signature import Signature
from harness.trace import write_text
from tools.bench.reproducers import wrong_status

DEVIATIONS = Path(__file__).parents[2] / "corpora" / "deviations"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return a directory with a trace that shows something, as is stated beside it."""
    folder = tmp_path / "corpus" / "vtd"
    folder.mkdir(parents=True)
    trace = wrong_status(12, 1, False)
    write_text(folder / "status.txt", trace.header, trace.events)
    state(folder / "status.expected.json", trace)
    sound = Trace(trace.header, trace.events[:7])  # up to a descriptor that was taken
    write_text(folder / "sound.txt", sound.header, sound.events)
    return tmp_path / "corpus"


def state(path: Path, trace: Trace) -> None:
    path.write_text(json.dumps([one.signature.as_json() for one in ReplayJudge("model")(trace)]))


def test_what_is_stated_is_found(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regress", str(corpus)]) == 0
    assert "2 files, 4 runs, 0 not as stated" in capsys.readouterr().out


def test_a_finding_that_is_gone_and_one_that_is_new_fail(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Signature("stale-use", "Access", "access of iotlb")
    (corpus / "vtd" / "status.expected.json").write_text(json.dumps([other.as_json()]))
    assert main(["regress", str(corpus), "--json"]) == 1
    *cases, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert (summary["runs"], summary["failed"]) == (4, 2)
    wrong = [one for one in cases if one["problem"]]
    assert {one["target"] for one in wrong} == {"model", "native"}
    assert "is missing: stale-use" in wrong[0]["problem"]
    assert "is new: divergence, StatusWrite" in wrong[0]["problem"]


def test_what_a_trace_shows_can_be_stated(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stated = corpus / "vtd" / "status.expected.json"
    wanted = json.loads(stated.read_text())
    stated.unlink()
    (corpus / "vtd" / "sound.expected.json").write_text(json.dumps(wanted))
    assert main(["regress", str(corpus)]) == 1
    assert main(["regress", str(corpus), "--write"]) == 0
    assert json.loads(stated.read_text()) == wanted
    assert not (corpus / "vtd" / "sound.expected.json").exists(), "nothing is found there"
    assert main(["regress", str(corpus)]) == 0
    capsys.readouterr()


def test_what_the_targets_do_not_agree_on_is_not_stated(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = corpus / "vtd" / "status.expected.json"
    stated.unlink()

    def one_sided(path: Path, targets: list[str], quiet: bool) -> Iterator[Result]:
        for one in replay(path, targets, quiet):
            yield replace(one, findings=[]) if targets == ["model"] else one

    monkeypatch.setattr("harness.regress.replay", one_sided)
    assert main(["regress", str(corpus), "--write"]) == 1
    assert not stated.exists()


def test_junit(corpus: Path, tmp_path: Path) -> None:
    (corpus / "vtd" / "status.expected.json").write_text("[]")
    (corpus / "vtd" / "damaged.txt").write_text("dmarewind-text 1\nheader {}\n")
    assert main(["regress", str(corpus), "--junit", str(tmp_path / "out.xml"), "-q"]) == 1
    (suite,) = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("6", "4")
    failed = {case.get("name"): case[0].text for case in suite if len(case)}
    assert set(failed) == {
        f"{name} [{target}]" for name in ("status.txt", "damaged.txt")
        for target in ("model", "native")
    }  # fmt: skip
    assert "is new" in str(failed["status.txt [model]"])
    assert "is missing" in str(failed["damaged.txt [native]"])


@pytest.mark.parametrize("text", ["{", "{}", '[{"kind": 1}]', "[" * 9999])
def test_statements_that_are_none_fail_by_name(
    corpus: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (corpus / "vtd" / "status.expected.json").write_text(text)
    assert main(["regress", str(corpus)]) == 1
    assert "status.expected.json" in capsys.readouterr().out


def test_what_is_kept_of_deviations_is_as_stated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regress", str(DEVIATIONS)]) == 0, capsys.readouterr().out
    traces = {path.stem for path in DEVIATIONS.glob("*.txt")}
    stated = {path.name.removesuffix(EXPECTED) for path in DEVIATIONS.glob(f"*{EXPECTED}")}
    assert stated, "nothing deviates"
    assert stated <= traces, "states what a trace shows that is not there"


def test_an_empty_directory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regress", str(tmp_path)]) == 2
    assert "holds no traces" in capsys.readouterr().err


class Found(Exception):  # noqa: N818
    """What a fuzz target raises."""

    signature = Signature("invariant", subject="planted")


class Planted:
    """A fuzz target that dislikes two inputs, and on a real unit a third."""

    against = ("model", "none", "qemu")

    def runner(self, against: str) -> Callable[[bytes], object]:
        """Return what runs an input."""

        def run(data: bytes) -> None:
            if data == b"found" or (data, against) == (b"real", "qemu"):
                raise Found
            if data == b"crash":
                raise ZeroDivisionError

        return run


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be one fuzz target."""
    module = ModuleType(FUZZ_TARGETS)
    module.__dict__.update(
        target_names=lambda: ("planted",), target_named=lambda _: Planted(), __spec__=object()
    )
    monkeypatch.setitem(sys.modules, FUZZ_TARGETS, module)


@pytest.mark.usefixtures("planted")
def test_inputs_of_fuzz_targets_are_run_on_theirs(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = corpus / "planted"
    folder.mkdir()
    (folder / "README.md").write_bytes(b"found")
    for name in ("fine", "found", "crash"):
        (folder / name).write_bytes(name.encode())
    assert main(["regress", str(corpus), "--json"]) == 1
    cases = [json.loads(line) for line in capsys.readouterr().out.splitlines()[:-1]]
    problems = {Path(c["path"]).name: c["problem"] for c in cases if c["target"] == "planted"}
    assert problems.keys() == {"fine", "found", "crash"}
    assert problems["fine"] == ""
    assert problems["found"] == "invariant, planted"
    assert problems["crash"].startswith("crash, exception, ZeroDivisionError")


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("inside", ["findings", "findings/planted"])
def test_a_finding_is_compared_with_what_it_was_found_against(
    tmp_path: Path, inside: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = Files(tmp_path)
    files.add_finding("planted", Seen(Found.signature, b"real", "it said no"), "qemu")
    monkeypatch.chdir(tmp_path / inside)
    assert main(["regress", "."]) == 1
    assert "on planted against qemu: invariant, planted" in capsys.readouterr().out
    (record,) = (tmp_path / "records").iterdir()
    for damaged in (
        "[]",
        "{",
        '{"input": 1}',
        json.dumps({"input": name_of(b"real"), "against": 1}),
    ):
        record.write_text(damaged)
        assert main(["regress", ".", "--json"]) == 0
        case = json.loads(capsys.readouterr().out.splitlines()[0])
        assert case["against"] == "model", "the default is not said"


@pytest.mark.parametrize("name", ["trace", "virtio", "capture"])
def test_a_trace_is_replayed_whatever_its_directory_is_called(corpus: Path, name: str) -> None:
    folder = (corpus / "vtd").rename(corpus / name)
    (folder / "input.txt").write_bytes(b"of a fuzzer")
    assert main(["regress", str(corpus)]) == 0
    (folder / "status.expected.json").unlink()
    assert main(["regress", str(corpus)]) == 1
