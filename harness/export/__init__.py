"""Turn a trace into something that others run: qtest scripts, C, pytest files, bug reports."""
