"""Runs on their way: made ready, one by one or many in step, to their outcomes."""
