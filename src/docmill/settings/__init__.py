"""config.yaml, the environment and flags, read once at the entry point into frozen settings."""
