"""The one kind of error a user sees: a single line that says where, what, what was expected and what to do."""

from __future__ import annotations


class Problem(Exception):
    """Bad input, as opposed to a defect of fxqat: the CLI prints it as one line on stderr and exits with code 2.

    Args:
        where: the file, ``file:line``, site or option the problem is in.
        what: what is wrong there.
        expected: what would have been right, without a leading "expected".
        remedy: what to do about it, as an imperative clause.
    """

    def __init__(self, where: object, what: str, *, expected: str = "", remedy: str = "") -> None:
        self.where, self.what, self.expected, self.remedy = str(where), what, expected, remedy
        parts = [f"{self.where}: {what}", f"expected {expected}" if expected else "", remedy]
        super().__init__("; ".join(" ".join(part.split()) for part in parts if part))
