"""Rules for the driver of a virtio-iommu, and the conditions of the model that break them."""

from __future__ import annotations

from harness.check.rules import Rule
from harness.model.virtio.rules import Condition

MALFORMED = Rule(
    "virtio-request-malformed",
    "virtio 1.4, 5.13.6",
    "A request has a type that is defined, all bytes of its structure, and room for the tail (and "
    "for probe_size bytes of properties). The device cannot carry it out, and may have no place to "
    "say so.",
)
RESERVED = Rule(
    "virtio-reserved",
    "virtio 1.4, 5.13.6.1 to 5.13.6.7",
    "The driver must set the reserved bytes of a request to zero. A later version of the device "
    "may give them a meaning; this one may refuse the request.",
)
FEATURE = Rule(
    "virtio-feature-not-accepted",
    "virtio 1.4, 2.2, 5.13.3",
    "MAP and UNMAP belong to the feature MAP_UNMAP and PROBE to PROBE. A driver must not use what "
    "it has not accepted, and must not accept what the device does not offer.",
)
FLAGS = Rule(
    "virtio-flags",
    "virtio 1.4, 5.13.6.3, 5.13.6.5",
    "The flags of ATTACH and MAP must be ones that are defined; BYPASS needs the accepted feature "
    "BYPASS_CONFIG and MMIO the feature MMIO. The device must refuse the request.",
)
ENDPOINT = Rule(
    "virtio-endpoint",
    "virtio 1.4, 5.13.6.3, 5.13.6.4, 5.13.6.7",
    "The request names an endpoint that is not behind this device, which said so.",
)
DOMAIN_RANGE = Rule(
    "virtio-domain-range",
    "virtio 1.4, 5.13.4 (domain_range)",
    "A domain's number must lie in the range that the config space gives.",
)
ATTACH_BYPASS = Rule(
    "virtio-attach-bypass",
    "virtio 1.4, 5.13.6.3",
    "All endpoints of a domain bypass translation or none does. The flag of this ATTACH is not "
    "that of the domain, which exists.",
)
NOT_ATTACHED = Rule(
    "virtio-not-attached",
    "virtio 1.4, 5.13.6.4",
    "DETACH names a domain in which the endpoint is not.",
)
DOMAIN_MISSING = Rule(
    "virtio-domain-missing",
    "virtio 1.4, 5.13.6.5, 5.13.6.6",
    "A domain begins with the first ATTACH that names it. Before that nothing can be mapped or "
    "unmapped in it.",
)
DOMAIN_ENDED = Rule(
    "virtio-domain-ended",
    "virtio 1.4, 5.13.6.4",
    "A domain ends, with all of its mappings, when its last endpoint leaves it. The driver goes on "
    "as if it still existed.",
)
DOMAIN_BYPASS = Rule(
    "virtio-domain-bypass",
    "virtio 1.4, 5.13.6.5, 5.13.6.6",
    "A domain that bypasses translation has no mappings: MAP and UNMAP are refused.",
)
RANGE = Rule(
    "virtio-range",
    "virtio 1.4, 5.13.6.5, 5.13.6.6",
    "virt_end is the last address of the range and must be greater than virt_start.",
)
OVERLAP = Rule(
    "virtio-map-overlap",
    "virtio 1.4, 5.13.6.5",
    "The range is mapped already, in part or in full. It must be unmapped first; the device "
    "refuses the request and the old mapping stays.",
)
ALIGNMENT = Rule(
    "virtio-map-alignment",
    "virtio 1.4, 5.13.4 (page_size_mask), 5.13.6.5",
    "virt_start, phys_start and virt_end + 1 must be multiples of the smallest page size, which "
    "the lowest bit of page_size_mask gives.",
)
INPUT_RANGE = Rule(
    "virtio-map-input-range",
    "virtio 1.4, 5.13.4 (input_range)",
    "The range must lie inside the addresses that the device translates.",
)
RESERVED_REGION = Rule(
    "virtio-map-reserved-region",
    "virtio 1.4, 5.13.6.5, 5.13.6.8 (RESV_MEM)",
    "The range meets a reserved region of an endpoint of the domain. The endpoint must not be "
    "given these addresses: they do not lead where the mapping says.",
)
SPLIT = Rule(
    "virtio-unmap-split",
    "virtio 1.4, 5.13.6.6",
    "UNMAP removes whole mappings. This range ends inside one, which the device does not split: it "
    "refuses the request and everything stays mapped.",
)
IN_USE = Rule(
    "virtio-unmapped-in-use",
    "virtio 1.4, 5.13.6.6",
    "An endpoint that had used a mapping goes on using it after its UNMAP. The driver gave the "
    "mapping up before the device was done, or the device goes on too long.",
)
BYPASS_FIELD = Rule(
    "virtio-config-write",
    "virtio 1.4, 5.13.4",
    "The driver may write one field of the config space, bypass, with 0 or 1, and only with the "
    "accepted feature BYPASS_CONFIG.",
)
RULES = (
    MALFORMED, RESERVED, FEATURE, FLAGS, ENDPOINT, DOMAIN_RANGE, ATTACH_BYPASS, NOT_ATTACHED,
    DOMAIN_MISSING, DOMAIN_ENDED, DOMAIN_BYPASS, RANGE, OVERLAP, ALIGNMENT, INPUT_RANGE,
    RESERVED_REGION, SPLIT, IN_USE, BYPASS_FIELD,
)  # fmt: skip

BROKEN_BY: dict[Condition, Rule] = {
    Condition.NO_HEAD_OR_TAIL: MALFORMED,
    Condition.UNKNOWN_TYPE: MALFORMED,
    Condition.SHORT_BODY: MALFORMED,
    Condition.PROBE_ROOM: MALFORMED,
    Condition.ATTACH_RESERVED: RESERVED,
    Condition.ATTACH_FLAGS: FLAGS,
    Condition.ATTACH_ENDPOINT: ENDPOINT,
    Condition.ATTACH_DOMAIN_RANGE: DOMAIN_RANGE,
    Condition.ATTACH_BYPASS: ATTACH_BYPASS,
    Condition.DETACH_ENDPOINT: ENDPOINT,
    Condition.DETACH_NOT_ATTACHED: NOT_ATTACHED,
    Condition.MAP_FLAGS: FLAGS,
    Condition.MAP_DOMAIN: DOMAIN_MISSING,
    Condition.MAP_BYPASS: DOMAIN_BYPASS,
    Condition.MAP_ORDER: RANGE,
    Condition.MAP_OVERLAP: OVERLAP,
    Condition.MAP_ALIGNMENT: ALIGNMENT,
    Condition.MAP_INPUT_RANGE: INPUT_RANGE,
    Condition.MAP_RESERVED_REGION: RESERVED_REGION,
    Condition.UNMAP_RESERVED: RESERVED,
    Condition.UNMAP_DOMAIN: DOMAIN_MISSING,
    Condition.UNMAP_BYPASS: DOMAIN_BYPASS,
    Condition.UNMAP_ORDER: RANGE,
    Condition.UNMAP_SPLIT: SPLIT,
    Condition.PROBE_ENDPOINT: ENDPOINT,
}
"""The rule that a condition breaks. What is missing is the device's own affair, or not certain."""
