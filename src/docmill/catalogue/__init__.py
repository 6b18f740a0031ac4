"""The models that docmill knows, and the files of models on this machine: find, download, verify, read headers."""
