"""Decide what a missing program means: a skip that says why, or a failure where nothing may miss.

A test marked ``qemu``, ``kernel`` or ``clang`` is skipped with its reason when the thing is
missing. With DMAREWIND_REQUIRE=all in the environment, as CI sets it, every skip is a failure
instead, but for tests marked ``optional``. pytest's summary lists the reasons (``-ra``).
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import hypothesis
import pytest

from harness.errors import HarnessError
from tools.guest import initramfs, kernel

REQUIRE_ALL = os.environ.get("DMAREWIND_REQUIRE") == "all"
QEMU_MINIMUM = (9, 1)

# An example takes longer when more runs beside it: no deadline. A failure prints how to repeat it.
hypothesis.settings.register_profile("dmarewind", deadline=None, print_blob=True)
hypothesis.settings.load_profile("dmarewind")


def _output(*command: str) -> str:
    """Run a command; give what it printed, or nothing when it cannot run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return ""
    return done.stdout


def _missing_qemu() -> str | None:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        return "qemu-system-x86_64 is not installed"
    found = re.search(r"version (\d+)\.(\d+)", _output(qemu, "--version"))
    if found is None or (int(found[1]), int(found[2])) < QEMU_MINIMUM:
        version = found[0] if found else "unknown version"
        return f"{qemu} is too old ({version}; 9.1 or newer is needed)"
    return None


def _missing_kernel() -> str | None:
    try:
        initramfs.find_busybox()
        kernel.find(download=False)
    except HarnessError as error:
        return str(error)
    return None


def _missing_clang() -> str | None:
    for name in ("clang", *(f"clang-{version}" for version in range(22, 13, -1))):
        clang = shutil.which(name)
        if clang is None:
            continue
        runtimes = Path(_output(clang, "-print-runtime-dir").strip() or "/nonexistent")
        if any(runtimes.glob("libclang_rt.fuzzer*.a")):
            return None
        # Debian's clang names a directory per target that it does not use.
        if any((runtimes.parent / "linux").glob("libclang_rt.fuzzer*.a")):
            return None
    return "clang with its runtimes (libclang-rt-*-dev) is not installed"


PROBES: dict[str, Callable[[], str | None]] = {
    "qemu": functools.cache(_missing_qemu),
    "kernel": functools.cache(_missing_kernel),
    "clang": functools.cache(_missing_clang),
}
"""For each marker, what is missing, or None."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose program is missing."""
    for marker, missing in PROBES.items():
        if item.get_closest_marker(marker) is not None and (reason := missing()):
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where everything is required; leave xfail alone."""
    report = yield
    optional = hasattr(report, "wasxfail") or item.get_closest_marker("optional") is not None
    if REQUIRE_ALL and report.skipped and not optional:
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Do the same for a module that skips itself as a whole."""
    report = yield
    if REQUIRE_ALL and report.skipped:
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"missing, with DMAREWIND_REQUIRE=all: {reason.removeprefix('Skipped: ')}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured, in every run: the lines they gave record_property as `summary`."""
    lines = [
        str(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == "summary"
    ]
    if lines:
        terminalreporter.section("what was recorded and explained")
        for line in sorted(lines):
            terminalreporter.write_line(line)
