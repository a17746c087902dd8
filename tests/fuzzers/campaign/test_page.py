"""The page stands alone, and is sound whatever was found."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from fuzzers.campaign.page import PLOTS, POINTS, plot, render
from fuzzers.campaign.places import Seen
from fuzzers.campaign.slices import FUZZ, Result
from fuzzers.campaign.state import State
from fuzzers.campaign.status import lines_of
from harness.signature import Signature
from tests.fuzzers.campaign.chores import TARGET


def page(directory: Path, slices: int) -> tuple[State, str]:
    state = State(directory)
    state.begin(TARGET, "none", ())
    bad = Seen(Signature("crash", "", "<script>alert(1)</script>"), b"x", "it said no")
    for number in range(slices):
        state.take(
            Result(FUZZ, TARGET, "p", "w", (bytes([number % 250]),), (bad,), 1.0, 100, number, 5)
        )
    samples = {TARGET: state.samples(TARGET)}
    return state, render(lines_of(state, (TARGET,), ()), samples, state.findings(), 0)


def test_nothing_comes_from_elsewhere_and_nothing_runs(tmp_path: Path) -> None:
    state, text = page(tmp_path, 3)
    state.close()
    assert not re.search(r"https?:|<script|<link|@import|src=", text)
    assert "&lt;script&gt;" in text
    assert text.count("<svg") == len(PLOTS)


def test_plots_are_thinned_out_and_end_with_the_newest(tmp_path: Path) -> None:
    state, _ = page(tmp_path, POINTS + 50)
    drawn = plot(state.samples(TARGET), "coverage", "edges")
    state.close()
    (points,) = re.findall(r'points="([^"]*)"', drawn)
    assert 2 <= len(points.split()) <= POINTS
    assert f", {POINTS + 49}</text>" in drawn


def test_a_campaign_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    state, text = page(tmp_path, 0)
    state.close()
    assert text.count("nothing yet") == len(PLOTS)
    for drawn in re.findall(r"<svg.*?</svg>", text, re.S):
        quoted = re.sub(r'=([^\s"/>]+)', r'="\1"', drawn)
        ElementTree.fromstring(quoted)
