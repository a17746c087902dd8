"""Make a trace that shows a finding as small as it can be, and say what the finding is about."""
