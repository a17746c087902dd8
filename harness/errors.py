"""Errors of everything that runs."""

from __future__ import annotations


class HarnessError(Exception):
    """Report that a command could not do its work; the message names the way out."""
