"""The page in a real browser: opened in under a second, and every control does what it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
LOADED = """
<script>
addEventListener("error", (event) => { document.title = "ERROR " + event.message; });
addEventListener("load", () => {
  const found = { ms: performance.now(), wide: document.documentElement.scrollWidth - innerWidth };
  const firsts = (name) => [...document.querySelectorAll(`table[data-name="${name}"] tbody tr`)];
  const type = (id, words) => { const field = document.getElementById(id); field.value = words; field.dispatchEvent(new Event("input")); };
  const press = (target, key) => target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const share = document.querySelectorAll("#errors-table thead button")[1];
  share.click();
  found.sorted = share.closest("th").getAttribute("aria-sort");
  found.shares = firsts("errors").map((row) => parseFloat(row.cells[2].dataset.v));
  type("find-policy", "detect_out float");
  found.hits = firsts("policy").filter((row) => !row.hidden).length;
  found.count = document.getElementById("count-policy").textContent;
  const net = document.getElementById("net"), before = net.getAttribute("viewBox");
  press(net, "+");
  found.zoomed = before !== net.getAttribute("viewBox");
  press(net, "Home"); press(net, "ArrowDown");
  found.chosen = document.querySelector("#panel h3").textContent;
  found.lit = document.querySelectorAll(".edges .lit").length;
  type("find-node", "softmax");
  press(document.getElementById("find-node"), "Enter");
  found.found = document.querySelector("#panel h3").textContent;
  document.getElementById("paint").value = "precision";
  document.getElementById("paint").dispatchEvent(new Event("change"));
  found.legend = document.getElementById("legend").textContent;
  document.title = "FOUND " + JSON.stringify(found);
});
</script>
"""  # noqa: E501


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium here, so nobody looked at the report: apt-get install chromium")
    return found


def run(browser: str, folder: Path, *words: str) -> str:
    """Start the browser with a profile of its own, so that no other one of this user answers; what it printed."""
    quiet = ("--no-sandbox", "--disable-gpu", "--disable-breakpad", "--hide-scrollbars")
    always = ("--headless=new", *quiet, f"--user-data-dir={folder}/profile")
    printed = folder / "printed.txt"
    with printed.open("wb") as out:  # no pipe: a helper process that outlives the browser would hold it open
        subprocess.run([browser, *always, *words], stdout=out, stderr=subprocess.DEVNULL, timeout=60, check=True)
    return printed.read_text(encoding="utf-8")


def probed(browser: str, page: str, folder: Path, size: str) -> dict[str, Any]:
    """What the page tells of itself once its script has run and every control was used."""
    file = folder / "probed.html"
    file.write_text(page.replace("</body>", f"{LOADED}</body>"), encoding="utf-8")
    dom = run(browser, folder, f"--window-size={size}", "--dump-dom", file.as_uri())
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    assert title
    assert title[1].startswith("FOUND "), title[1]
    return dict(json.loads(unescape(title[1]).removeprefix("FOUND ")))


def test_every_control_does_what_it_says(chromium: str, page: str, tmp_path: Path) -> None:
    found = probed(chromium, page, tmp_path, "1280,900")
    assert found["sorted"] == "descending"
    assert found["shares"] == sorted(found["shares"], reverse=True)
    assert found["hits"] == 14  # six convolutions, and the flattening and joining of what they give
    assert found["count"].startswith("14 of ")
    assert found["zoomed"]
    assert found["chosen"] == "model.0.conv"
    assert found["lit"] == 2
    assert found["found"] == "model.22.dfl.softmax"
    assert "integers" in found["legend"]
    assert found["ms"] < 1000


def test_nothing_is_wider_than_a_phone(chromium: str, page: str, tmp_path: Path) -> None:
    assert probed(chromium, page, tmp_path, "500,900")["wide"] <= 0


def test_it_has_a_light_and_a_dark_look(chromium: str, page: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    for name, words in (("light", []), ("dark", ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"])):
        run(chromium, tmp_path, *words, "--window-size=1000,700", f"--screenshot={tmp_path / name}.png", file.as_uri())
    light, dark = (cv2.imread(str(tmp_path / f"{name}.png")).mean() for name in ("light", "dark"))
    assert light > 200
    assert dark < 80
