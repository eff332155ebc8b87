"""Guards: servers that remember what workers sent and expel those that cannot be honest."""
