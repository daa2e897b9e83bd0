"""The driver's side of a run: the centre, the desk where workers report, and their service."""
