"""A search that knows nothing of a QEMU finds things out, and a plain QEMU shows them again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from decoders.events import AccessKind, RegWrite, Role, Store
from decoders.vtd import registers as vtd
from decoders.vtd.registers import fault_record_offset
from fuzzers.real import BareVtdJudge
from fuzzers.rediscovery import Rediscovery, turns
from fuzzers.target import BARE, MODEL, QEMU, Found, judged_by
from harness.differential.bare import Bare, Life
from harness.differential.cause import cause, explained, least_of
from harness.differential.evidence import reproducer, reproduces
from harness.differential.naming import TAKEN
from harness.errors import HarnessError
from harness.generate.vtd_steps import DmaChoice, Step
from harness.generate.vtd_tables import QUEUE, Spot
from harness.qemu.pc import PROGRAM
from harness.qemu.vtd import VtdQemu
from harness.signature import Signature

qemu_only = pytest.mark.qemu
ROOT, CONTEXT, DIRECTORY, PASIDS = 0x10_0000, 0x10_1000, 0x10_2000, 0x10_3000
PASS_THROUGH = 0x101
FIRST_STAGE = 0x49
RID_PASID = "the unit alone looks at, scalable context rid_pasid"
ON = (
    RegWrite(vtd.RTADDR.offset, 8, ROOT | 0x400),
    RegWrite(vtd.GCMD.offset, 4, 0x4000_0000),
    RegWrite(vtd.GCMD.offset, 4, 0x8400_0000),
)
UNUSUAL_WAIT = Step(
    "given",
    (Store(QUEUE, 8, 0x5),),
    (
        RegWrite(vtd.IQA.offset, 8, QUEUE),
        RegWrite(vtd.GCMD.offset, 4, 0x400_0000),
        RegWrite(vtd.IQT.offset, 8, 16),
    ),
)
"""A wait descriptor that asks for nothing, which no QEMU takes."""


@pytest.fixture(scope="module")
def bare() -> Iterator[Bare]:
    with VtdQemu("second-stage") as machine:
        yield Bare(machine, 24)


def through_pasid(bare: Bare, number: int) -> Life:
    """Return DMA through a PASID entry that passes through, RID_PASID naming a number."""
    sid = bare.qemu.sid(0)
    context = CONTEXT + 32 * (sid & 0x7F)
    stores = (
        Store(ROOT + 16 * (sid >> 8) + 8 * (sid >> 7 & 1), 8, CONTEXT | 1),
        Store(context, 8, DIRECTORY | 1),
        Store(context + 8, 8, number),
        Store(DIRECTORY, 8, PASIDS | 1),
        Store(PASIDS, 8, PASS_THROUGH),
    )
    dma = DmaChoice(0, AccessKind.WRITE, bare.qemu.pool.start)
    spots = [
        Spot(Role.ROOT, ROOT, (0, 0)),
        Spot(Role.SCALABLE_CONTEXT, context, (0, 0, 0, 0)),
        Spot(Role.PASID_DIRECTORY, DIRECTORY, (0,)),
        Spot(Role.PASID_TABLE, PASIDS, (0,) * 8),
    ]
    return Life([Step("given", stores, ON, dma=dma)], 16, spots)


@qemu_only
def test_the_cause_is_the_field_that_one_side_looks_at_alone(bare: Bare) -> None:
    life = through_pasid(bare, 1)
    shown = [one for one in bare.run(life.steps, life.slot) if one.signature.event == "Access"]
    if bare.qemu.version >= (11,):
        assert not shown, "RID_PASID does not count without ECAP.RPS"
        return
    (one,) = shown
    name = cause(bare, one, life)
    assert name is not None and RID_PASID in str(name)
    assert explained(bare, one, life, [name]) == name
    more = replace(life.steps[0], stores=(*life.steps[0].stores, Store(CONTEXT + 0x800, 8, 1)))
    least = least_of(bare, name, replace(life, steps=[Step("given", reads=()), more]))
    assert least is not None and len(least[0].steps) == 1
    assert len(least[0].steps[0].stores) <= len(life.steps[0].stores)
    other = Signature(name.kind, name.event, name.subject, name.outcome, "pasid table p")
    assert explained(bare, one, life, [other]) is None


@qemu_only
def test_a_cause_is_found_behind_a_step_that_shows_something_else(bare: Bare) -> None:
    if bare.qemu.version >= (11,):
        pytest.skip("RID_PASID does not count without ECAP.RPS")
    life = through_pasid(bare, 1)
    (step,) = life.steps
    root, *rest = step.stores
    taken = RegWrite(fault_record_offset(bare.qemu.capability, 0) + 12, 4, 1 << 31)
    steps = [
        replace(step, stores=(root,)),  # a context entry that is not present has another reason
        replace(step, stores=tuple(rest), writes=(taken,)),
    ]
    life = replace(life, steps=steps)
    shown = bare.run(life.steps, life.slot)
    assert [one.step for one in shown if one.signature.event == "Access"] == [0, 1]
    one = next(one for one in shown if one.step == 1)
    name = cause(bare, one, life)
    assert name is not None and RID_PASID in str(name)
    assert explained(bare, one, life, [name]) == name


@qemu_only
def test_a_cause_explains_what_tables_hold() -> None:
    with VtdQemu("first-stage") as machine:
        bare = Bare(machine, 24)
        life = through_pasid(bare, 1)
        (step,) = life.steps
        place = machine.pool.start
        stores = list(step.stores[:-1])
        for number in (0, 1):
            tables = [0x10_4000 + 0x4000 * number + 0x1000 * level for level in range(4)]
            stores += (
                Store(PASIDS + 64 * number, 8, FIRST_STAGE),
                Store(PASIDS + 64 * number + 16, 8, tables[0]),
                Store(tables[0], 8, tables[1] | 7),
                Store(tables[1], 8, tables[2] | 7),
                Store(tables[2] + 8 * (place >> 21), 8, tables[3] | 7),
                Store(tables[3] + 8 * (place >> 12 & 0x1FF), 8, place | 7),
            )
        # Both lead to the same page, and a read leaves nothing but A.
        dma = DmaChoice(0, AccessKind.READ, place)
        life = replace(life, steps=[replace(step, stores=tuple(stores), dma=dma)])
        shown = bare.run(life.steps, life.slot)
        if machine.version >= (11,):
            assert not shown, "RID_PASID does not count without ECAP.RPS"
            return
        assert {one.signature.subject for one in shown} == {"table"}
        name = Signature(
            "divergence", "", "the unit alone looks at", "", "scalable context rid_pasid"
        )
        for one in shown:
            assert explained(bare, one, life, [name]) == name


def test_subjects_of_one_kind_take_turns_as_kinds_do() -> None:
    wait, other = (
        Signature("divergence", "Descriptor", subject, "taken -> refused")
        for subject in ("InvalidationWait fn", "InvalidationWait sw")
    )
    assert turns(wait)[:2] == turns(other)[:2], "flags are no subject"
    assert len(set(turns(wait))) == len(turns(wait))
    faults, others = (
        replace(wait, event="Access", outcome=outcome)
        for outcome in ("fault 0x3a -> fault 0x0a", "fault 0x71 -> fault 0x51")
    )
    assert turns(faults)[:3] == turns(others)[:3], "one sort of outcome has one turn"
    assert turns(faults)[3] != turns(others)[3]
    cache = replace(wait, subject="PasidCacheInvalidation")
    assert turns(cache)[0] == turns(wait)[0] and turns(cache)[1] != turns(wait)[1]


def queued(*words: int) -> Life:
    """Return a queue of 256-bit descriptors that holds some."""
    stores = tuple(Store(QUEUE + 8 * n, 8, word) for n, word in enumerate(words) if word)
    writes = (
        RegWrite(vtd.IQA.offset, 8, QUEUE | 1 << 11),
        RegWrite(vtd.GCMD.offset, 4, 0x400_0000),
        RegWrite(vtd.IQT.offset, 8, 32),
    )
    return Life([Step("given", stores, writes)], 32, [])


@qemu_only
def test_a_descriptor_that_is_not_looked_at_is_told_from_one_with_a_field_that_is_not(
    bare: Bare,
) -> None:
    names = set()
    for words in ((0x27,), (0x37, 1)):  # a granularity that there is none of; reserved bits
        for one in bare.run(queued(*words).steps, 32):
            names.add(cause(bare, one, queued(*words)))
    whole = {
        Signature(
            "divergence", "Descriptor", "PasidCacheInvalidation", f"{TAKEN}, whatever it holds"
        )
    }
    assert names == (whole if bare.qemu.version < (11,) else set())


@qemu_only
def test_a_sound_machine_shows_nothing(bare: Bare) -> None:
    life = through_pasid(bare, 0)
    assert not bare.run(life.steps, life.slot)


@qemu_only
def test_a_script_shows_a_plain_qemu_what_was_found(bare: Bare, tmp_path: Path) -> None:
    filling = Step("given", (), (RegWrite(vtd.FEDATA.offset, 4, 7),))
    life = Life([filling, UNUSUAL_WAIT, filling], 16, [])
    (shown,) = bare.run(life.steps, life.slot)
    assert str(shown.signature) == "divergence, Descriptor, InvalidationWait, taken -> refused"
    least = bare.least(shown, life)
    assert least is not None and len(least.steps) == 1
    small = bare.again(shown.signature, least.steps, least.slot)
    assert small is not None
    made = reproducer(bare, small, ["a wait that asks for nothing"])
    path = tmp_path / "script.sh"
    # QEMU does not end where its commands do.
    path.write_text(made.script.replace("timeout 5", "timeout 2"))
    assert made.checks and reproduces(path, made, PROGRAM)
    harmless = made.script.replace("writeq 0x1e0000 0x5", "writeq 0x1e0000 0x25")
    path.write_text(harmless.replace("timeout 5", "timeout 2"))
    assert harmless != made.script and not reproduces(path, made, PROGRAM)


@qemu_only
def test_a_script_shows_that_a_write_arrived_that_should_have_been_refused(
    bare: Bare, tmp_path: Path
) -> None:
    life = through_pasid(bare, 0)
    (step,) = life.steps
    reserved = [replace(one, value=PASIDS | 0x21) if one.address == DIRECTORY else one
                for one in step.stores]  # fmt: skip
    shown = bare.run([replace(step, stores=tuple(reserved))], life.slot)
    assert [one.signature.outcome for one in shown] == ["fault 0x52 -> identity"]
    made = reproducer(bare, shown[0], ["reserved bits"])
    path = tmp_path / "script.sh"
    path.write_text(made.script.replace("timeout 5", "timeout 2"))
    assert reproduces(path, made, PROGRAM)
    absent = made.script.replace(f"{PASIDS:#x} {PASS_THROUGH:#x}", f"{PASIDS:#x} 0x0")
    path.write_text(absent.replace("timeout 5", "timeout 2"))
    assert absent != made.script and not reproduces(path, made, PROGRAM)


@qemu_only
def test_a_search_names_each_finding_once(bare: Bare) -> None:
    search = Rediscovery([Bare(bare.qemu, 6)])
    seed = 0
    while not search.waiting:
        search.run(seed)
        seed += 1
    while search.waiting:
        search.study()
    found = list(search.findings.values())
    assert found and [one.name for one in found] == list(search.findings)
    assert all(one.raw and sum(search.seen[name] for name in one.raw) for one in found)
    search.run(seed - 1)
    assert not search.waiting, "what is known is not looked at again"


@qemu_only
def test_a_fuzzer_without_deviations_tells_of_all_that_an_input_shows() -> None:
    with contextlib.closing(BareVtdJudge(24)) as judge:
        for seed in range(8):
            try:
                judge.run(Random(seed).randbytes(768))
            except Found as error:
                if error.beside:
                    assert error.trace is not None and error.text
                    return
    pytest.fail("no input of eight shows two things")


def test_what_is_known_can_only_be_disabled_for_a_real_unit() -> None:
    assert judged_by(None, deviations=True) is None
    assert judged_by(QEMU, deviations=True) == QEMU
    assert judged_by(None, deviations=False) == judged_by(QEMU, deviations=False) == BARE
    with pytest.raises(HarnessError, match="about a real unit"):
        judged_by(MODEL, deviations=False)
