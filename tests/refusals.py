"""How a test asks for the text of a refusal: the whole line, and that it is one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fxqat.errors import Problem


def refusal(call: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The one line with which ``call`` refuses."""
    with pytest.raises(Problem) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
