"""ONNX files: export, edits for a runtime, and checks of what a file holds."""
