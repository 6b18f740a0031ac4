"""Recommend a model for a machine: its tier, the decision tree, and a config.yaml."""
