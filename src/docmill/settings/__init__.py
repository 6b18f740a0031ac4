"""The settings: defaults.py states them, load.py reads them from flags, the environment and config.yaml."""
