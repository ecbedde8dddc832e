"""The numbers fxqat reports, each ``python -m bench.NAME``."""
