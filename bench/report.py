"""How long a report takes to open: ``python -m bench.report report.html [--rounds N]``.

Each round is a browser of its own with an empty profile, headless: milliseconds from the start of the navigation to the
page's load event (``performance.timing`` of the page itself) and to its first paint.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

from bench.command import parser, run
from fxqat.errors import Problem

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60  # after which a browser is given up
_TELL = """
<script>
addEventListener("load", () => {
  const load = performance.now(), paint = performance.getEntriesByName("first-contentful-paint")[0];
  document.title = "FOUND " + JSON.stringify({ load, paint: paint ? paint.startTime : null });
});
</script>
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON where asked; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measured)


def browser() -> str | None:
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def printed(chromium: str, folder: Path, *words: str) -> str:
    """What a headless browser prints. Its profile lies in ``folder``, so that no other one of this user answers."""
    quiet = ("--no-sandbox", "--disable-gpu", "--disable-breakpad", "--hide-scrollbars")
    always = ("--headless=new", *quiet, f"--user-data-dir={folder}/profile")
    file = folder / "printed.txt"
    with file.open("wb") as out:  # no pipe: a helper process that outlives the browser would hold it open
        how: dict[str, Any] = {"stdout": out, "stderr": subprocess.DEVNULL, "timeout": SECONDS, "check": True}
        subprocess.run([chromium, *always, *words], **how)
    return file.read_text(encoding="utf-8")


def told(chromium: str, page: str, script: str, folder: Path, *words: str) -> dict[str, Any]:
    """What ``script``, put at the end of ``page``, says of it: JSON in the title, after the word FOUND.

    Raises:
        Problem: the page ended with another title, such as that of an error.
    """
    file = folder / "probed.html"
    file.write_text(page.replace("</body>", f"{script}</body>"), encoding="utf-8")
    dom = printed(chromium, folder, *words, "--dump-dom", file.as_uri())
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    if title is None or not title[1].startswith("FOUND "):
        raise Problem(file.name, f"says {title[1] if title else 'nothing'!r}", expected="a page that loads")
    return dict(json.loads(unescape(title[1]).removeprefix("FOUND ")))


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    chromium = browser()
    if chromium is None:
        raise Problem("chromium", "is not installed", remedy="apt-get install chromium")
    if not options.page.is_file():
        raise Problem(options.page, "is no file", expected="what fxqat report wrote")
    page = options.page.read_text(encoding="utf-8")
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="fxqat-page-", ignore_cleanup_errors=True) as folder:
            rounds.append(told(chromium, page, _TELL, Path(folder)))
    for event in ("load", "paint"):
        values = [one[event] for one in rounds if one[event] is not None]
        if values:
            median = statistics.median(values)
            print(f"{event}: median {median:.0f} ms, {min(values):.0f} to {max(values):.0f}, {len(values)} starts")
    return {"page": options.page.name, "bytes": len(page.encode()), "rounds": rounds}


def _parser() -> argparse.ArgumentParser:
    made = parser("report", __doc__)
    made.add_argument("page", type=Path, metavar="REPORT.html")
    made.add_argument("--rounds", type=int, default=10, help="browsers started (default: %(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main())
