"""Change ACPI tables at random and compare how the decoders and the native core take them."""
