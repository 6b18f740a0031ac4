"""The tasks that come with docmill, one YAML file each; `--task path/to/your.yaml` takes your own."""
