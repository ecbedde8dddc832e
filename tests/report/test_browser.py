"""The page in a real browser: every control does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import pytest

from bench.report import browser, printed, told

LOADED = """
<script>
addEventListener("error", (event) => { document.title = "ERROR " + event.message; });
addEventListener("load", () => {
  const found = { wide: document.documentElement.scrollWidth - innerWidth };
  const firsts = (name) => [...document.querySelectorAll(`table[data-name="${name}"] tbody tr`)];
  const type = (id, words) => { const field = document.getElementById(id); field.value = words; field.dispatchEvent(new Event("input")); };
  const press = (target, key) => target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const share = document.querySelectorAll("#errors-table thead button")[1];
  share.click();
  found.sorted = share.closest("th").getAttribute("aria-sort");
  found.shares = firsts("errors").map((row) => parseFloat(row.cells[2].dataset.v));
  type("find-policy", "box_out float");
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
    found = browser()
    if found is None:
        pytest.skip("no Chromium here, so nobody looked at the report: apt-get install chromium")
    return found


def probed(browser: str, page: str, folder: Path, size: str) -> dict[str, Any]:
    """What the page tells of itself once its script has run and every control was used."""
    return told(browser, page, LOADED, folder, f"--window-size={size}")


def policy_rows(page: str) -> list[str]:
    """The rows of the table of decisions, as text."""
    (table,) = re.findall(r'<table id="policy-table".*?</table>', page, re.DOTALL)
    return re.findall(r"<tr.*?</tr>", table.partition("<tbody>")[2], re.DOTALL)


def test_every_control_does_what_it_says(chromium: str, page: str, tmp_path: Path) -> None:
    found = probed(chromium, page, tmp_path, "1280,900")
    assert found["sorted"] == "descending"
    assert found["shares"] == sorted(found["shares"], reverse=True)
    rows = policy_rows(page)
    hits = sum("box_out" in row and "float" in row for row in rows)
    assert 0 < hits < len(rows)
    assert (found["hits"], found["count"]) == (hits, f"{hits} of {len(rows)}")
    assert found["zoomed"]
    assert found["chosen"] == "model.0.conv"
    assert found["lit"] == 2
    assert found["found"] == "model.22.dfl.softmax"
    assert "integers" in found["legend"]


def test_nothing_is_wider_than_a_phone(chromium: str, page: str, tmp_path: Path) -> None:
    assert probed(chromium, page, tmp_path, "500,900")["wide"] <= 0


def test_it_has_a_light_and_a_dark_look(chromium: str, page: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    for name, words in (("light", []), ("dark", ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"])):
        printed(
            chromium, tmp_path, *words, "--window-size=1000,700", f"--screenshot={tmp_path / name}.png", file.as_uri()
        )
    light, dark = (cv2.imread(str(tmp_path / f"{name}.png")).mean() for name in ("light", "dark"))
    assert light > 200
    assert dark < 80
