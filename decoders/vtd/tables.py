"""Root, context and PASID tables (VT-d specification, chapter 9).

Reserved here are the bits no revision gives a meaning; address bits at or above the host address
width are reserved too, but how many those are is a property of the unit.
"""

from __future__ import annotations

from decoders.fields import Structure, quadwords


class RootEntry(Structure):
    """Point to the context table of one bus (VT-d 9.1; QEMU VTD_ROOT_ENTRY_RSVD)."""

    fields_desc = quadwords(
        [("p", 1), ("reserved", 11), ("ctp", 52)],
        [("reserved", 64)],
    )


class ScalableRootEntry(Structure):
    """Point to the two context tables of one bus, devfn below 0x80 and above (VT-d 9.2)."""

    fields_desc = quadwords(
        [("lp", 1), ("reserved", 11), ("lctp", 52)],
        [("up", 1), ("reserved", 11), ("uctp", 52)],
    )


class ContextEntry(Structure):
    """Map one function to a domain, legacy mode (VT-d 9.3; QEMU VTD_CONTEXT_ENTRY_RSVD_LO)."""

    fields_desc = quadwords(
        [("p", 1), ("fpd", 1), ("tt", 2), ("reserved", 8), ("ssptptr", 52)],
        [("aw", 3), ("ignored", 4), ("reserved", 1), ("did", 16), ("reserved", 40)],
    )


class ScalableContextEntry(Structure):
    """Map one function to a PASID directory (VT-d 9.4; QEMU VTD_SM_CONTEXT_ENTRY_RSVD_VAL0)."""

    fields_desc = quadwords(
        [
            ("p", 1),
            ("fpd", 1),
            ("dte", 1),
            ("paside", 1),
            ("pre", 1),
            ("reserved", 4),
            ("pdts", 3),
            ("pasiddirptr", 52),
        ],
        [("rid_pasid", 20), ("rid_priv", 1), ("reserved", 43)],
        [("reserved", 64)],
        [("reserved", 64)],
    )


class PasidDirectoryEntry(Structure):
    """Point to a PASID table of 64 entries (VT-d 9.5; Linux struct pasid_dir_entry)."""

    fields_desc = quadwords(
        [("p", 1), ("fpd", 1), ("reserved", 10), ("smptblptr", 52)],
    )


class PasidEntry(Structure):
    """Say how requests with one PASID are translated (VT-d 9.6; Linux pasid.h)."""

    fields_desc = quadwords(
        [
            ("p", 1),
            ("fpd", 1),
            ("aw", 3),
            ("ssee", 1),
            ("pgtt", 3),
            ("ssade", 1),
            ("reserved", 2),
            ("ssptptr", 52),
        ],
        [
            ("did", 16),
            ("reserved", 7),
            ("pwsnp", 1),
            ("pgsnp", 1),
            ("cd", 1),
            ("emte", 1),
            ("emt", 3),
            ("pwt", 1),
            ("pcd", 1),
            ("pat", 32),
        ],
        [
            ("sre", 1),
            ("ere", 1),
            ("fspm", 2),
            ("wpe", 1),
            ("nxe", 1),
            ("smep", 1),
            ("eafe", 1),
            ("reserved", 4),
            ("fsptptr", 52),
        ],
        *[[("reserved", 64)]] * 5,
    )
