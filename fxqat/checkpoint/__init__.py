"""The .fxqat file: its format, and models saved to and loaded from it."""
