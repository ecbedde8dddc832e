"""Hook of mkdocs: a line ``<!-- from code: NAME -->`` becomes a section made from the code, and ``<!-- from file: PATH
-->`` the content of a Markdown file of the repository."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(REPOSITORY), str(REPOSITORY / "docs" / "hooks")) if path not in sys.path]

from sections import SECTIONS  # noqa: E402

_CODE = re.compile(r"^<!-- from code: (\S+) -->$", re.MULTILINE)
_FILE = re.compile(r"^<!-- from file: (\S+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The text of a page with its sections in place; KeyError or FileNotFoundError where there is no such section."""
    return _FILE.sub(_content, _CODE.sub(lambda found: SECTIONS[found[1]](), markdown))


def _content(found: re.Match[str]) -> str:
    """The file; a link from bench/ to the site's root stays one from measurements/ to it."""
    return (REPOSITORY / found[1]).read_text()
