"""Sequences of every mode lead model and native in step; a difference is found and made small."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from decoders.events import AccessKind, Translation
from decoders.vtd.faults import Reason
from harness.cli import main
from harness.differential.in_step import InStep, stimuli
from harness.differential.pair import compare
from harness.generate.vtd_machines import MACHINES, simulated
from harness.generate.vtd_mixed import MixedGenerator
from harness.generate.vtd_spaces import MixedTables, NestedSpace
from harness.model.caches import Caches
from harness.model.config import UnitConfig
from harness.model.translate import Request
from harness.native import available
from harness.replay import unit_config
from harness.trace import open_events
from tests.harness.generate.test_vtd import running

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not built")

NEVER = {
    Reason.INTERRUPT_RANGE_REQUEST, Reason.ROOT_TABLE_ADDRESS_4, Reason.SM_CONTEXT_INVALID,
    Reason.SM_GENERAL_9, Reason.SM_GENERAL_10,
}  # fmt: skip
"""Reasons whose condition is not known (docs/limits.md)."""

RARE = {
    Reason.SM_RID_PASID_BEYOND_DIRECTORY, Reason.POSTED_RESERVED, Reason.FS_ROOT_NO_READ,
    Reason.FS_TABLE_BEYOND_SECOND_STAGE, Reason.FS_TABLE_NO_WRITE, Reason.FS_TABLE_NO_READ,
    Reason.FS_ROOT_ACCESS, Reason.SM_NO_EXECUTE, Reason.SM_SS_ROOT_ACCESS, Reason.SM_ROOT_ACCESS,
    Reason.POSTED_ACCESS,
}  # fmt: skip
"""Reasons that a short run may miss; 10^5 steps meet all."""

SEQUENCES = 220


@pytest.fixture(scope="module")
def run() -> InStep:
    running = InStep(80)
    for seed in range(SEQUENCES):
        found = running.run(seed)
        assert found is None, f"seed {seed}, step {found.step}: {found.disagreement}"
    return running


def test_model_and_native_agree_on_every_machine(run: InStep) -> None:
    assert run.totals.steps == 80 * SEQUENCES
    assert set(run.totals.machines) == set(MACHINES)


def test_every_way_to_translate_is_met(run: InStep) -> None:
    wanted = {
        "untranslated", "no root table", "no paging table", "pass-through", "legacy pass-through",
        *(f"legacy {levels} levels" for levels in (3, 4, 5)),
        *(f"second-stage {levels} levels" for levels in (3, 4, 5)),
        *(f"first-stage {levels} levels" for levels in (4, 5)),
        *(f"nested {levels} levels" for levels in (4, 5)),
    }  # fmt: skip
    assert wanted <= set(run.totals.ways), wanted - set(run.totals.ways)


def test_every_fault_reason_is_met_but_those_that_cannot_be(run: InStep) -> None:
    met = set(run.totals.outcomes)
    wanted = {f"{reason:#04x}" for reason in set(Reason) - NEVER - RARE} | {"0x00"}
    assert wanted <= met, sorted(wanted - met)
    assert not met & {f"{reason:#04x}" for reason in NEVER}, "then docs/limits.md is wrong"
    assert {"Translation", "Message", "Posted"} <= met


def test_caches_findings_and_observations_are_met(run: InStep) -> None:
    wanted = {
        "context", "pasid", "iotlb", "paging-structure", "stale-use iotlb", "unflushed context",
        "stale-after-invalidation iotlb", "page-reuse paging-structure", "FaultRecord",
        "Descriptor", "StatusWrite", "Interrupt", "PageRequestRecord", "PageResponse",
        "DeviceTlbMessage",
    }  # fmt: skip
    assert wanted <= set(run.totals.seen), wanted - set(run.totals.seen)


def test_a_sequence_depends_on_its_seed_alone() -> None:
    name, scene = InStep(80).machine(5)
    assert name == tuple(MACHINES)[5]
    again = [MixedGenerator(scene, Random(5)).sequence(40) for _ in range(2)]
    assert again[0] == again[1]
    assert all(list(stimuli(step, scene)) for step in again[0] if step.dma is not None)


def test_sound_nested_tables_translate_every_mapping() -> None:
    config = simulated("nested-5", Random(0)).config
    config = UnitConfig(config.capability, config.extended_capability)
    done = 0
    for seed in range(12):
        tables = MixedTables(config, (0x18, 0x20), (0x3C_0000, 64), Random(seed))
        unit = running(tables)
        for sid, pasid, iova in nested_mappings(tables):
            request = Request(sid, pasid, iova, AccessKind.READ)
            outcome = unit.translator.candidates(request)[0].outcome
            assert isinstance(outcome, Translation), (seed, sid, pasid, hex(iova), outcome)
            done += 1
    assert done > 100, done


def nested_mappings(tables: MixedTables) -> Iterator[tuple[int, int, int]]:
    """Yield source, PASID and address of what is mapped through two stages."""
    for place, spaces in zip(tables.places, tables.pasids, strict=True):
        for pasid, index in spaces.items():
            space = tables.spaces[index]
            if isinstance(space, NestedSpace):
                yield from ((place.sid, pasid, iova) for iova in space.iovas)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the model keep what an invalidation of pages should drop; the core does not."""
    drop = Caches.drop_second_stage

    def hinted(self: Caches, event: int, domain: int, address: int, mask: int, _: bool) -> None:
        drop(self, event, domain, address, mask, True)

    monkeypatch.setattr(Caches, "drop_second_stage", hinted)


@pytest.mark.usefixtures("forgetful")
def test_a_difference_is_shrunk_kept_and_seen_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--steps", "8000", "--seed", "0", "--machine", "legacy", "--keep", str(tmp_path)]
    code = main(["--json", "diff", "--unit", "vtd", "--targets", "model,native", *options])
    found, *_, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert code == 1 and summary["differences"] > 0
    with open_events(Path(found["trace"])) as source:
        events = list(source)
    assert len(events) < 40, "it was not made small"
    config = unit_config(source.header)
    assert config == InStep(80, ["legacy"]).machine(found["seed"])[1].config
    again = compare(config, events)
    assert again is not None and again.what == found["what"]


def test_the_verb_splits_the_work_and_says_what_was_met(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["--json", "diff", "--unit", "vtd", "--targets", "model,native", "--seed", "3"]
    summaries = []
    for jobs in ("1", "2"):
        assert main([*command, "--steps", "4000", "--jobs", jobs]) == 0
        (summary,) = map(json.loads, capsys.readouterr().out.splitlines())
        summaries.append({name: summary[name] for name in summary if name != "seconds"})
        summaries[-1].pop("rate")
    assert summaries[0] == summaries[1], "what is met depends on how many share the work"
    assert summaries[0]["steps"] == 4000 and summaries[0]["met"]["translated"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--targets", "model,native", "--machine", "narrow"], "here there are legacy"),
        (["--targets", "model,qemu", "--machine", "nested"], "here there are legacy"),
        (["--targets", "model,qemu", "--jobs", "2"], "--jobs is for --unit vtd without qemu"),
        (["--targets", "model,native", "--no-deviations"], "need qemu among the targets"),
        (["--targets", "model,native", "--qemu", "qemu"], "need qemu among the targets"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", "--unit", "vtd", *options]) == 2
    assert said in capsys.readouterr().err
