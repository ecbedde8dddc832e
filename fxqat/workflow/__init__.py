"""The steps from a float detector to an exported file, one function a file; fxqat.api has them all."""
