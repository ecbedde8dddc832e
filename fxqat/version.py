"""The version of fxqat."""

VERSION = "0.1.0"
