"""Runs jobs on an engine. Never imports code that reads documents."""
