"""Architectures of a few layers, where the network does not matter and every layer costs time."""

# One of each block of YOLOv8 and two levels of its head, to follow ``backbone:``.
V8 = """
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C2f, [32, True]]
  - [-1, 1, SPPF, [32, 5]]
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 0], 1, Concat, [1]]
head:
  - [[5, 3], 1, {head}]
"""
