"""Rules about invalidations that are missing, too small, not awaited, or in the wrong order."""

from __future__ import annotations

from harness.check.rules import Rule

CONTEXT_STALE = Rule(
    "context-not-invalidated",
    "VT-d 6.2, 6.5.3.3; Linux domain_context_clear_one",
    "A context entry was changed or cleared after a request had gone through it, and no "
    "invalidation of the context cache has covered it. The unit may still use the old entry, and "
    "this request would then be answered differently.",
)
PASID_STALE = Rule(
    "pasid-not-invalidated",
    "VT-d 6.2, 6.5.3.3; Linux intel_pasid_tear_down_entry",
    "A PASID entry was changed or cleared after a request had gone through it, and no invalidation "
    "of the PASID cache has covered it. The unit may still use the old entry, and this request "
    "would then be answered differently.",
)
TABLE_STALE = Rule(
    "table-not-invalidated",
    "VT-d 6.2, 6.5.3.3",
    "An entry that led to another table was changed or cleared after a request had gone through "
    "it, and no invalidation has covered that region. Paging-structure caches may still lead to "
    "the old table.",
)
HINT = Rule(
    "leaf-hint-misused",
    "VT-d 6.5.2.3 (IH)",
    "With the invalidation hint (IH = 1) software promises that only leaves were changed, and the "
    "unit keeps its paging-structure caches. Here an entry that led to another table had been "
    "changed, so that the unit may still go through the old table.",
)
MAPPING_STALE = Rule(
    "mapping-not-invalidated",
    "VT-d 6.2, 6.5.3.3",
    "A mapping was changed or cleared after a request had gone through it, and no IOTLB "
    "invalidation has covered the page. The unit may still use the old mapping, and this request "
    "would then go to memory that was given up. Where the mapping was cleared, either that came "
    "too early or the device goes on too long.",
)
DOMAIN_STALE = Rule(
    "domain-not-invalidated",
    "VT-d 6.5.3.3; Linux domain_context_clear_one, intel_pasid_tear_down_entry",
    "A context or PASID entry was changed and invalidated, but not the translations under its "
    "domain id, which is in use again with other tables. The unit may answer from the old ones.",
)
CONTEXT_ORDER = Rule(
    "context-flush-order",
    "VT-d 6.5.3.3; Linux domain_context_clear_one: context cache, then IOTLB",
    "When a context entry changes, the context cache is invalidated first and then the IOTLB of "
    "its old domain. The other way round, a request that still finds the old entry in the context "
    "cache fills the IOTLB once more. No invalidation of the domain follows before the device is "
    "used again.",
)
PASID_ORDER = Rule(
    "pasid-flush-order",
    "VT-d 6.5.3.3; Linux intel_pasid_tear_down_entry: PASID cache, then PASID-based IOTLB",
    "When a PASID entry changes, the PASID cache is invalidated first and then the translations of "
    "the PASID or of its old domain. The other way round, a request that still finds the old entry "
    "in the PASID cache fills the IOTLB once more. No invalidation follows before it is used "
    "again.",
)
MAP_CM = Rule(
    "map-not-invalidated",
    "VT-d 6.1 (caching mode), 11.4 (CAP.CM); Linux intel_iommu_iotlb_sync_map",
    "With caching mode (CAP.CM = 1) the unit may cache that a page is not mapped. A mapping of the "
    "second stage that becomes present needs an IOTLB invalidation before it is used: an emulated "
    "unit sees new mappings by it.",
)
CONTEXT_CM = Rule(
    "context-present-not-invalidated",
    "VT-d 6.1 (caching mode), 11.4 (CAP.CM); Linux domain_context_mapping_one",
    "With caching mode (CAP.CM = 1) the unit may cache that a context entry is not present, in "
    "legacy mode with domain 0. One that becomes present needs a context-cache invalidation that "
    "covers it there before it is used.",
)
PASID_CM = Rule(
    "pasid-present-not-invalidated",
    "VT-d 6.1 (caching mode), 11.4 (CAP.CM); Linux pasid_flush_caches",
    "With caching mode (CAP.CM = 1) the unit may cache that a PASID entry is not present. One that "
    "becomes present needs a PASID-cache invalidation before it is used.",
)
WAIT_MISSING = Rule(
    "wait-missing",
    "VT-d 6.5.2.8",
    "Descriptors that the unit has taken need not have had their effect. Only a wait descriptor "
    "behind them tells. Here an old mapping or table was invalidated, no wait descriptor has "
    "followed, and the address is used already with another mapping, or the page of the table for "
    "something else.",
)
PAGE_REUSED = Rule(
    "table-page-reused",
    "VT-d 6.2, 6.5.3.3; Linux iommu_put_pages_list behind the flush",
    "A page that was a table, and that no entry links any more, is written again while "
    "paging-structure caches may still lead to it: nothing has invalidated the region since the "
    "link was cut. The unit may take the new content for table entries.",
)
RULES = (
    CONTEXT_STALE, PASID_STALE, TABLE_STALE, HINT, MAPPING_STALE, DOMAIN_STALE, CONTEXT_ORDER,
    PASID_ORDER, MAP_CM, CONTEXT_CM, PASID_CM, WAIT_MISSING, PAGE_REUSED,
)  # fmt: skip
