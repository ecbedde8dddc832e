"""LiteRT files (.tflite): export, the flatbuffer, and sessions that run it."""
