"""Documents in, jobs out, merges planned, results back. Never imports an engine."""
