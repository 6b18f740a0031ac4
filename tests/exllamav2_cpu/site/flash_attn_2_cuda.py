"""exllamav2 imports this only to see that it is there."""
