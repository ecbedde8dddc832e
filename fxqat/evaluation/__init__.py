"""Evaluation: accuracy with its uncertainty, latency, memory, and the drift from float to the exported file."""
