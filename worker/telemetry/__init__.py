"""What a worker measures: Prometheus metrics, resource samples, GPU energy."""
