"""Runtimes: export of the INT8 reference graph, its integer arithmetic, and the comparison of both code by code."""
