"""The INT8 reference graph as exporters take it: fused kernels, redundant Q/DQ, names, metadata."""
