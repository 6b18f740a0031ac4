"""Every query that only reads."""
