"""Comparing strategies: which runs there are, running them, what came of them, the report."""
