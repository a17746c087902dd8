"""Replays of traces, changed and unchanged."""
