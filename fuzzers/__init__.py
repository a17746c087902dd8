"""Fuzz targets and what runs them. Imports harness and decoders; nothing imports it."""
