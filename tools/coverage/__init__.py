"""Measure which lines and branches of the C++ core the comparisons with the model run."""
