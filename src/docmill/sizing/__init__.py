"""Arithmetic about the memory that models need, before and after they are loaded."""
