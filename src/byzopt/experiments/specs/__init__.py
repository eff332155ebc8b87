"""What to run: files, presets and settings, as a strict `Spec`."""
