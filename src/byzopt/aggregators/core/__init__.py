"""What a rule is, one call of it, and what is known of an answer."""
