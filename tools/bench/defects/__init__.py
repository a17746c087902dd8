"""Plant defects in the core, one at a time, and see how long the fuzzers take to find each."""
