"""Tests of `export`: what comes out can be run, and shows what the trace shows."""
