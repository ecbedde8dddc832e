"""Sensitivity: the error of each quantizer, and what it does to the output."""
