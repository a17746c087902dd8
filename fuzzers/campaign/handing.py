"""Hand over what a slice finds while it is at it: the machine it runs on may be gone at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from fuzzers.campaign.places import Place, inputs_in, name_of
from fuzzers.campaign.slices import FUZZ, HANDED, Result, worker_name

EVERY: Final = 0.5
_SHARE: Final = 20
"""How many times as long as a look takes there is none."""
_REST: Final = 10.0
"""Seconds until it is tried again where nobody takes anything."""
_LOAD: Final = 4 << 20
"""Bytes handed over at once, but for one input that is longer."""

Send = Callable[[Result], bool]
"""Sends what has been found; says whether that was taken."""


class Courier:
    """Look at a place from time to time, and send what has not been sent."""

    def __init__(self, send: Send, every: float = EVERY) -> None:
        self._send, self._every = send, every
        self._due = 0.0
        self._sent: set[str] = set()
        """Names of inputs, and keys of findings."""

    def __call__(self, place: Place) -> None:
        """Send what is new, when it is time."""
        began = time.monotonic()
        if began < self._due:
            return
        kind, target, given = place.about()
        inputs = self._inputs(place, given) if kind == FUZZ else []
        findings = [seen for seen in place.seen() if seen.signature.key not in self._sent]
        taken = True
        if inputs or findings:
            taken = self._send(
                Result(HANDED, target, place.name, worker_name(), tuple(inputs), tuple(findings))
            )
        if taken:
            self._sent.update(map(name_of, inputs))
            self._sent.update(seen.signature.key for seen in findings)
        ended = time.monotonic()
        rest = max(self._every, _SHARE * (ended - began)) if taken else _REST
        self._due = ended + rest

    def _inputs(self, place: Place, given: frozenset[str]) -> list[bytes]:
        inputs: list[bytes] = []
        load = 0
        for data in inputs_in(place.corpus, given | self._sent):
            load += len(data)
            if inputs and load > _LOAD:
                break
            inputs.append(data)
        return inputs
