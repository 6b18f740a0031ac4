"""Documents in: sources (files, archives, globs) and formats."""
