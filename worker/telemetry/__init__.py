"""What a worker measures: metrics, resources, energy."""
