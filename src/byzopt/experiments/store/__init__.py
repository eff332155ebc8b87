"""Runs as they are stored: written at once, read without trust."""
