"""ACPI tables of machines: where they are found, and which IOMMU they name for a device."""
