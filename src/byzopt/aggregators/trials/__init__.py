"""Rules that try steps on a loss that the server owns, before it takes one."""
