"""A report on one batch, as a self-contained HTML page or as JSON."""
