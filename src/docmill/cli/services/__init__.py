"""Starts and supervises services: the one-machine stack, one worker per GPU, logs."""
