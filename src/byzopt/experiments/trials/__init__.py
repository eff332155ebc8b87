"""Running: prepared runs, one at a time or several in step, from their start to their outcomes."""
