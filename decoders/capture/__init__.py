"""Read recordings made by other programs: each format is one file here."""
