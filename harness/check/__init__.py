"""What the software did wrong, whatever the unit made of it (docs/check.md)."""
