"""The only room that knows Ultralytics: loading, tracing, heads, images, checkpoints."""
