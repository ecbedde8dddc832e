"""Models: loading Ultralytics checkpoints and architectures, tracing them, their heads and names."""
