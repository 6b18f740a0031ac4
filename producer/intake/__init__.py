"""Reads documents: from files, archives, globs and memory, in every format."""
