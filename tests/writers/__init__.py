"""Build malformed input, field by field."""
