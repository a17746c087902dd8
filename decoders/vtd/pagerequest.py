"""Page request queue entries (VT-d 7.4)."""

from __future__ import annotations

from decoders.fields import Structure, quadwords


class PageRequest(Structure):
    """Hold one request a device sent (VT-d 7.4.1; Linux struct page_req_dsc).

    pdp existed in revisions 3.0 to 3.x; without it the private data is reserved. A group ends with
    lpig; lpig without rd and wr is a stop marker.
    """

    fields_desc = quadwords(
        [
            ("type", 8),
            ("pp", 1),
            ("pdp", 1),
            ("reserved", 6),
            ("rid", 16),
            ("pasid", 20),
            ("exr", 1),
            ("pmr", 1),
            ("reserved", 10),
        ],
        [("rd", 1), ("wr", 1), ("lpig", 1), ("prgi", 9), ("addr", 52)],
        [("private_data_low", 64)],
        [("private_data_high", 64)],
    )


PAGE_REQUEST_TYPE = 1
"""The only entry type there is."""
