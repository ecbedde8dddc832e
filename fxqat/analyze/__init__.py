"""What quantization does to a detector: accuracy, its uncertainty, latency."""
