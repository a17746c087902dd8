"""Show which lines and branches inputs run: of the core as clang counts, and of the Python code."""
