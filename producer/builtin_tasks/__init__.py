"""The built-in tasks, one YAML file each. `--task path/to/your.yaml` uses your own."""
