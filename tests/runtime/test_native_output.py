"""Hidden output of libraries: gone for the time, back afterwards, also after an error."""

from __future__ import annotations

import os

import pytest

from fxqat.runtime.tflite.native_output import hidden


def test_what_is_written_past_python_is_hidden(capfd):
    with hidden():
        os.write(1, b"noise\n")
        os.write(2, b"noise\n")
    os.write(1, b"said\n")
    assert capfd.readouterr() == ("said\n", "")


def test_output_comes_back_after_an_error(capfd):
    with pytest.raises(ValueError, match="why"), hidden():
        raise ValueError("why")
    os.write(2, b"said\n")
    assert capfd.readouterr() == ("", "said\n")
