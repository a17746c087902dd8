"""Domains are followed by what the recorded answers say, not by what they ought to be."""

from __future__ import annotations

from decoders.events import DeviceReset, Event, Request, Reset
from harness.domains import Domains
from harness.trace import Header
from tests.writers.virtio_iommu import INVAL, asked, attach, detach, map_, unmap

A, B = 0x18, 0x20


def followed(*events: Event, dialect: str = "spec", budget: int = 100) -> Domains:
    domains = Domains(Header(dialect=dialect), budget)
    for event in events:
        domains.apply(event)
    return domains


def pages(domain: int, *numbers: int) -> list[Request]:
    return [asked(map_(domain, n << 12, n << 12 | 0xFFF, 0x80000)) for n in numbers]


def test_mappings_and_domains_at_a_time() -> None:
    found = followed(
        asked(attach(1, A)), asked(attach(2, B)), *pages(1, 1, 2, 3), asked(unmap(1, 0, 0x2FFF)),
        *pages(2, 1),
    )  # fmt: skip
    assert (found.most_domains, found.most_mappings, found.mappings) == (2, 3, 2)
    assert (found.domain_of(A), found.domain_of(B), found.domain_of(0x28)) == (1, 2, None)


def test_refused_requests_change_nothing() -> None:
    refused = asked(attach(1, A), INVAL), asked(map_(1, 0, 0xFFF, 0), INVAL)
    found = followed(*refused, Request(attach(1, A), 4, b""))
    assert (found.most_domains, found.most_mappings, found.domain_of(A)) == (0, 0, None)


def test_an_answer_that_was_not_captured_is_taken_for_ok() -> None:
    assert followed(Request(attach(1, A), 4, None)).domain_of(A) == 1


def test_the_last_endpoint_ends_a_domain() -> None:
    shared = followed(asked(attach(1, A)), asked(attach(1, B)), *pages(1, 1, 2))
    shared.apply(asked(detach(1, A)))
    assert (shared.domain_of(A), shared.mappings) == (None, 2)
    shared.apply(asked(attach(3, B)))
    assert (shared.domain_of(B), shared.mappings) == (3, 0)


def test_a_second_attach_ends_the_domain_in_qemu() -> None:
    story = asked(attach(1, A)), *pages(1, 1), asked(attach(1, A))
    assert followed(*story).mappings == 1
    assert followed(*story, dialect="qemu-10.0").mappings == 0


def test_a_reset_ends_all() -> None:
    found = followed(asked(attach(1, A)), *pages(1, 1, 2), DeviceReset(), asked(attach(2, A)))
    assert (found.mappings, found.most_mappings, found.domain_of(A)) == (0, 2, 2)


def test_a_device_reset_ends_nothing_in_qemu_10_0() -> None:
    story: list[Event] = [asked(attach(1, A)), *pages(1, 1, 2), DeviceReset()]
    kept = followed(*story, dialect="qemu-10.0")
    assert (kept.mappings, kept.domain_of(A)) == (2, 1)
    kept.apply(Reset())
    assert (kept.mappings, kept.domain_of(A)) == (0, None)


def test_it_is_said_where_following_ends() -> None:
    found = followed(asked(attach(1, A)), *pages(1, *range(20)), budget=10)
    assert not found.complete
    assert 0 < found.most_mappings <= 10
