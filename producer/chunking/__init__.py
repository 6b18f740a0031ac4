"""Cuts text into chunks that fit the context window exactly."""
