"""All rules, by their ids."""

from __future__ import annotations

from harness.check import commands, device_tlb, entries, queue, stale_rules, tables, virtio
from harness.check.rules import Rule, by_id

VTD_RULES: dict[str, Rule] = by_id(
    commands.RULES, queue.RULES, entries.RULES, tables.RULES, stale_rules.RULES, device_tlb.RULES
)
VIRTIO_RULES: dict[str, Rule] = by_id(virtio.RULES)
RULES: dict[str, Rule] = by_id(VTD_RULES.values(), VIRTIO_RULES.values())
