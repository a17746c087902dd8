"""Tests of `minimise`: what is left out, what passes, and that it goes on where it was."""
