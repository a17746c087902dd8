"""Small Linux guests that drive a VT-d unit, for recordings and tests."""
