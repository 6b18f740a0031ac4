"""A batch as one self-contained HTML page, or as the same numbers in JSON."""
