"""Which tier a machine is, which model suits it, and the config.yaml for that."""
