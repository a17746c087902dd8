"""Tests of `check`: a driver that keeps every rule, and one mistake at a time."""
