"""The page in a real browser: no error, no request, nothing wider than the window, readable light and dark."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from regroup_dask.report.page import write_page
from tests.report.output_folder import write_output

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

PROBE = """
<script>
addEventListener("error", function (event) { document.title = "ERROR " + event.message; });
addEventListener("securitypolicyviolation", function (event) { document.title = "ERROR " + event.violatedDirective; });
addEventListener("load", function () {
  var svg = document.getElementById("matrix");
  svg.focus();
  svg.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  document.getElementById("m1").click();
  var hidden = getComputedStyle(document.querySelector("svg .of-m0")).display;
  var found = {
    pictures: Array.from(document.images).every(function (image) { return image.complete && image.naturalWidth > 0; }),
    count: document.images.length,
    requests: performance.getEntriesByType("resource").filter(function (entry) {
      return !entry.name.startsWith("data:");
    }).length,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    readout: document.getElementById("readout").textContent,
    switched: hidden,
    background: getComputedStyle(document.body).backgroundColor
  };
  if (document.title.indexOf("ERROR") !== 0) { document.title = "FOUND " + JSON.stringify(found); }
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "OUT"
    return write_page(write_output(folder, labels=(0, 1, 0, 1, 0, -1), warnings=("Class 3 has little signal.",)))


def probe(page: Path, tmp_path: Path, *, width: int, dark: bool) -> dict:
    copy = tmp_path / "probed.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</head>", PROBE + "</head>"), encoding="utf-8")
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},900",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--dump-dom",
        copy.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None
    text = title.group(1).replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
    assert text.startswith("FOUND "), text
    return dict(json.loads(text[6:]))


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (500, True)])
def test_in_browser(page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    found = probe(page, tmp_path, width=width, dark=dark)
    assert found["pictures"]
    assert found["count"] >= 6
    assert found["requests"] == 0
    assert found["overflow"] <= 0
    assert found["switched"] == "none"
    assert "similarity" in found["readout"]
    brightness = sum(int(value) for value in re.findall(r"\d+", found["background"])[:3]) / 3
    assert (brightness < 60) == dark
