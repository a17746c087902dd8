"""Fuzz many targets on many workers for as long as it takes, and lose nothing on the way."""
