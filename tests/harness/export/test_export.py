"""What is exported runs by itself: pytest, a C compiler and a plain QEMU are asked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from decoders.events import Access, AccessKind, RegRead, RegWrite, Store
from harness.cli import main
from harness.minimise.engine import Options, minimise
from harness.minimise.judges import ReplayJudge
from harness.minimise.trace import Trace, read
from harness.trace import write_text
from tools.bench.reproducers import shipped, virtio_status, wrong_status

ROOT = Path(__file__).parents[3]
FOR_IOCTLS = ("c", "syz")

LIBQTEST = """
#include <stddef.h>
#include <stdint.h>
typedef struct QTestState QTestState;
QTestState *qtest_init(const char *extra_args);
void qtest_quit(QTestState *s);
void qtest_outb(QTestState *s, uint16_t addr, uint8_t value);
void qtest_outw(QTestState *s, uint16_t addr, uint16_t value);
void qtest_outl(QTestState *s, uint16_t addr, uint32_t value);
void qtest_writeb(QTestState *s, uint64_t addr, uint8_t value);
void qtest_writew(QTestState *s, uint64_t addr, uint16_t value);
void qtest_writel(QTestState *s, uint64_t addr, uint32_t value);
void qtest_writeq(QTestState *s, uint64_t addr, uint64_t value);
uint8_t qtest_readb(QTestState *s, uint64_t addr);
uint16_t qtest_readw(QTestState *s, uint64_t addr);
uint32_t qtest_readl(QTestState *s, uint64_t addr);
uint64_t qtest_readq(QTestState *s, uint64_t addr);
void qtest_memwrite(QTestState *s, uint64_t addr, const void *data, size_t size);
void qtest_memset(QTestState *s, uint64_t addr, uint8_t patt, size_t size);
void qtest_add_func(const char *str, void (*fn)(void));
void g_test_init(int *argc, char ***argv, ...);
int g_test_run(void);
void check(int held);
#define g_assert_cmphex(a, op, b) check((uint64_t)(a) op (uint64_t)(b))
"""
"""What QEMU's tests/qtest/libqtest.h and GLib declare of that."""


def small(trace: Trace, path: Path) -> Path:
    """Write what is left of a trace that shows something."""
    left = minimise(trace, ReplayJudge("native"), Options()).trace
    write_text(path, left.header, left.events)
    return path


@pytest.fixture(scope="module")
def vtd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trace of a VT-d unit whose last answer is wrong."""
    return small(shipped("legacy-strict", 3000), tmp_path_factory.mktemp("vtd") / "answer.txt")


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trace of an invalidation queue."""
    return small(wrong_status(60, 1, False), tmp_path_factory.mktemp("queue") / "queue.txt")


@pytest.fixture(scope="module")
def virtio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trace of a virtio-iommu that refused a request."""
    return small(virtio_status(0, 60), tmp_path_factory.mktemp("virtio") / "status.txt")


@pytest.fixture(params=["vtd", "queue", "virtio"])
def trace(request: pytest.FixtureRequest) -> Path:
    """Return each of them."""
    path: Path = request.getfixturevalue(request.param)
    return path


def export(trace: Path, kind: str, out: Path) -> str:
    assert main(["export", str(trace), "--as", kind, "-o", str(out), "-q"]) == 0
    return out.read_text()


def test_a_pytest_file_passes_and_notices_a_change(trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "test_kept.py"
    text = export(trace, "pytest", path)
    key = re.search(r'^    "([0-9a-f]{12})",  # divergence', text, re.MULTILINE)
    assert key is not None, text

    def outcome() -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout.splitlines()[-1]

    assert outcome().startswith("2 passed")
    if trace.stem == "answer":
        path.write_text(text.replace(key[1], "0" * 12))
        assert outcome().startswith("2 failed")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_c_test_compiles(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "libqtest.h").write_text(LIBQTEST)
    (tmp_path / "qemu").mkdir()
    (tmp_path / "qemu" / "osdep.h").write_text("")
    path = tmp_path / "iommu-test.c"
    text = export(trace, "qtest-c", path)
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Wno-unused-value", "-Werror",
               "-fsyntax-only", f"-I{tmp_path}", str(path)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'qtest_add_func("/iommu/iommu", test_iommu);' in text


def test_what_is_expected_is_asserted_in_c(vtd: Path, tmp_path: Path) -> None:
    text = export(vtd, "qtest-c", tmp_path / "a.c")
    assert "g_assert_cmphex(qtest_readl(s, 0xfed90034ULL) & 0x2, ==,\n" in text


def test_markdown_has_what_a_maintainer_needs(trace: Path, tmp_path: Path) -> None:
    text = export(trace, "markdown", tmp_path / "report.md")
    for wanted in ("| signature | `", "## Command line", "qemu-system-x86_64 -nodefaults",
                   "## What is wrong", "The rule: ", "dmarewind-text 1", "#!/bin/sh"):  # fmt: skip
        assert wanted in text
    assert "VT-d" in text or "virtio 1.4, 5.13.6" in text


@pytest.mark.parametrize("kind", FOR_IOCTLS)
def test_forms_for_ioctls_are_refused(
    kind: str, vtd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(vtd), "--as", kind, "-o", str(out)]) == 2
    assert "makes ioctls" in capsys.readouterr().err
    assert not out.exists()


def test_what_cannot_be_shown_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "passed.txt"
    recording = shipped("scalable-first-stage", 10_000)
    left = minimise(recording, ReplayJudge("native"), Options()).trace
    lines = ["access 00:1f.2 - 0x1000 read ?", "interrupt-request 00:04.0 0xfee00000 0x0 ?"]
    write_text(path, left.header, left.events)
    path.write_text(path.read_text() + "\n".join(lines) + "\n")
    assert main(["export", str(path), "--as", "qtest", "-o", str(tmp_path / "a"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["left_out"] == {
        "DMA of device 00:1f.2, where no device can be put": 1, "InterruptRequest": 1
    }  # fmt: skip


# --- a plain QEMU --------------------------------------------------------------------------------


def answers(script: Path) -> list[tuple[str, str]]:
    """Run a script; return its commands with what QEMU said to each."""
    lines = script.read_text().splitlines()
    commands = lines[next(n for n, line in enumerate(lines) if line.endswith("<<'END'")) + 1 : -1]
    done = subprocess.run(
        ["sh", str(script)], capture_output=True, text=True, check=False, timeout=60
    )
    said = [line for line in done.stdout.splitlines() if line[:3] != "IRQ"]
    assert len(said) == len(commands), done.stderr
    return list(zip(commands, said, strict=True))


EXPECTED = re.compile(r"# expected: (\S+ \S+)(?: & (0x[0-9a-f]+))? = (0x[0-9a-f]+)")


def without_options_of_one_version(path: Path) -> None:
    """Take the switches out that have another name since 11.0; these traces need none."""
    path.write_text(re.sub(r",x-[a-z-]+=on", "", path.read_text()))


@pytest.mark.qemu
def test_a_right_unit_gives_what_a_script_expects(trace: Path, tmp_path: Path) -> None:
    """What the traces claim is made up: a QEMU does what is expected, and not that."""
    path = tmp_path / "a.sh"
    text = export(trace, "qtest", path)
    assert os.access(path, os.X_OK)
    without_options_of_one_version(path)
    found = answers(path)
    assert all(said.startswith("OK") for _, said in found)
    last = {command: int(said.split()[1], 16) for command, said in found if " 0x" in said}
    wanted = EXPECTED.findall(text)
    for command, mask, value in wanted:
        assert last[command] & int(mask or hex((1 << 64) - 1), 16) == int(value, 16), command
    if trace.stem != "queue":
        assert wanted


@pytest.mark.qemu
def test_a_queue_runs_on_a_plain_qemu(queue: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.sh"
    export(queue, "qtest", path)
    path.write_text(path.read_text().replace("\nEND\n", "\nreadq 0xfed90080\nEND\n"))
    without_options_of_one_version(path)
    assert answers(path)[-1] == ("readq 0xfed90080", "OK 0x0000000000000010")


@pytest.mark.qemu
def test_where_a_write_should_lead_is_marked(vtd: Path, tmp_path: Path) -> None:
    wrote, script = tmp_path / "wrote.txt", tmp_path / "a.sh"
    writable = re.sub(r" 0x700[1-3]\n", " 0x7003\n", vtd.read_text())
    wrote.write_text(re.sub(" (unknown|read) = ", " write = ", writable))
    text = export(wrote, "qtest", script)
    assert "# expected: readq 0x7000 = 0x0 (the mark is overwritten)\n" in text
    without_options_of_one_version(script)
    found = answers(script)
    assert ("writeq 0x7000 0x5a5a5a5a5a5a5a5a", "OK") in found
    assert ("readq 0x7000", "OK 0x0000000000000000") in found


def test_the_bits_that_count_are_named(vtd: Path, tmp_path: Path) -> None:
    """A fault is expected: only its reason counts of the record."""
    path, script = tmp_path / "fault.txt", tmp_path / "a.qtest"
    path.write_text(re.sub(r"store 0x6000 8 0x700[1-3]\n", "", vtd.read_text()))
    text = export(path, "qtest", script)
    assert re.search("expected: readq 0xfed90228 & 0xff00000000 = 0x[56]00000000 ", text), text
    assert "& 0xff00000000ULL, ==," in export(path, "qtest-c", tmp_path / "a.c")


def test_a_unit_somewhere_else_is_at_the_place_of_qemus(vtd: Path, tmp_path: Path) -> None:
    trace = read(vtd)
    (unit,) = trace.header.units
    moved = replace(trace.header, units=(replace(unit, base=(1 << 64) - 1),))
    write_text(tmp_path / "moved.txt", moved, trace.events)
    assert export(tmp_path / "moved.txt", "qtest", tmp_path / "moved") == export(
        vtd, "qtest", tmp_path / "as-it-was"
    )


def test_what_qemu_does_not_have_is_left_out_not_written(vtd: Path, tmp_path: Path) -> None:
    trace = read(vtd)
    more = (
        Store(0xFED9_0018, 4, 1),
        Store(1 << 40, 8, 1),
        RegWrite(0x230, 4, 1),
        RegRead(0xFF0, 4, None),
    )
    write_text(tmp_path / "more.txt", trace.header, [*more, *trace.events])
    text = export(tmp_path / "more.txt", "qtest", tmp_path / "more")
    assert "left out: memory above 0x80000000 (2)" in text
    assert "left out: registers that QEMU's unit does not have (2)" in text
    for place in ("0xfed90018 0x1", "0x10000000000", "0xfed90230", "0xfed90ff0"):
        assert place not in text


@pytest.mark.parametrize(("slots", "status"), [((0x03, 0x1E, 0x1D), 0), (range(1, 0x1F), 2)])
def test_a_virtio_iommu_finds_a_slot_or_says_that_there_is_none(
    virtio: Path, tmp_path: Path, slots: Sequence[int], status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    trace = read(virtio)
    more = [Access(slot << 3, None, 0x1000, AccessKind.READ, None) for slot in slots]
    write_text(tmp_path / "full.txt", trace.header, [*trace.events, *more])
    words = ["export", str(tmp_path / "full.txt"), "--as", "qtest", "-o", str(tmp_path / "out")]
    assert main(words) == status
    assert ("leaves no slot" in capsys.readouterr().err) == bool(status)


def test_a_crash_is_told_and_what_qemu_was_not_asked_is_said(tmp_path: Path) -> None:
    trace = shipped("legacy-strict", 3000)
    sound = tmp_path / "sound.txt"
    write_text(sound, trace.header, trace.events[:20])
    assert "# vtd: a trace not judged on QEMU" in export(sound, "markdown", tmp_path / "plain.md")
    text = "qemu-system-x86_64: a.c:7: walk: Assertion `level' failed."
    words = ["export", str(sound), "--as", "markdown", "-o", str(tmp_path / "crash.md")]
    assert main([*words, "--crash", text]) == 0
    (title, *_) = (tmp_path / "crash.md").read_text().splitlines()
    assert title.startswith("# vtd: crash")
    assert "does not survive" in (tmp_path / "crash.md").read_text()
    words[3] = "pytest"
    assert main([*words, "--crash", text]) == 2
