"""How a test asks for the text of a refusal: the whole line, and that it is one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from fxqat.errors import Problem


def refusal(call: Callable[..., Any], *args: Any, **options: Any) -> str:
    """The one line with which ``call`` refuses."""
    with pytest.raises(Problem) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def problem(pattern: str) -> AbstractContextManager[pytest.ExceptionInfo[Problem]]:
    """For ``with``: what is inside refuses with a line that is ``pattern`` from end to end."""
    return pytest.raises(Problem, match=f"^{pattern}$")


def text(value: object) -> str:
    """``value`` as a pattern that matches nothing else."""
    return re.escape(str(value))
