"""What the real exllamav2 package needs of a GPU, on a CPU. For tests only; see the README two folders up."""
