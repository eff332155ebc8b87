"""Papers' tables and figures as declared sweeps, beside their printed numbers."""
