"""The rules that explain why a batch was slow, failed or wrote badly."""
