"""Runs jobs on an engine. Never imports a document."""
