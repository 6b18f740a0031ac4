"""Reads documents, plans and queues jobs, merges their answers and exports results. Never imports an engine."""
