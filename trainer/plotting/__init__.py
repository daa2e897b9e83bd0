"""Curves of runs: read from what they recorded, drawn into a picture."""
