"""Tensors into a safetensors file, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fxqat.files import disk_errno, replacing


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write atomically.

    Args:
        path: of the file.
        tensors: on the CPU, contiguous, none of which shares memory with another.
        metadata: text by key, for the header.

    Raises:
        Problem: the path cannot be written, or the disk is full.
    """
    with replacing(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata))
        except SafetensorError as error:  # which wraps what the disk said
            number = disk_errno(str(error))
            if number is None:
                raise
            raise OSError(number, os.strerror(number)) from error
