"""What theory promises of a run, what was measured of it, and searches for what breaks a rule."""
