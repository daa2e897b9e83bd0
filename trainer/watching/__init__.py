"""A live view of a run, from what it writes into its metrics file."""
