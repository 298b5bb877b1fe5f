"""The page in a real browser: no error, no request, nothing wider than the window, readable light and dark."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from regroup_dask.report.page import write_page
from tests.report.output_folder import write_output

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

AXE = resources.files("axe_core_python") / "axe.min.js" if importlib.util.find_spec("axe_core_python") else None

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
  function tell() {
    if (document.title.indexOf("ERROR") !== 0) { document.title = "FOUND " + JSON.stringify(found); }
  }
  if (!window.axe) { tell(); return; }
  axe.run(document, { resultTypes: ["violations"] }).then(function (result) {
    found.rules_passed = result.passes.length;
    found.violations = result.violations.map(function (rule) {
      return rule.id + ": " + rule.help + ": " + rule.nodes.map(function (node) { return node.html; }).join(" ");
    });
    tell();
  });
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "OUT"
    return write_page(write_output(folder, labels=(0, 1, 0, 1, 0, -1), warnings=("Class 3 has little signal.",)))


def probe(page: Path, tmp_path: Path, *, width: int, dark: bool) -> dict:
    axe = "" if AXE is None else "<script>" + AXE.read_text(encoding="utf-8").replace("</script", "<\\/script") + "</script>"
    text = page.read_text(encoding="utf-8").replace("</head>", axe + PROBE + "</head>")
    return opened(text, tmp_path, width=width, dark=dark)


def opened(text: str, tmp_path: Path, *, width: int, dark: bool) -> dict:
    """What a page says of itself in its title after it was loaded."""
    copy = tmp_path / "probed.html"
    copy.write_text(text, encoding="utf-8")
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
        "--virtual-time-budget=20000",
        "--dump-dom",
        copy.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None
    text = html.unescape(title.group(1))
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
    if AXE is not None:
        # The accessibility rules of axe-core: contrast, names of what one can act on, roles, order of headings.
        assert found["violations"] == []
        assert found["rules_passed"] > 30


WIDE_WORD = "/projects/" + "a_folder_with_a_long_name/" * 8


def test_nothing_is_wider_than_a_telephone(tmp_path: Path) -> None:
    """Windows of a browser are at least 500 points wide: the page is shown in a frame of 390."""
    names = tuple(f"{WIDE_WORD}class_{index}" for index in range(6))
    folder = write_output(tmp_path / "OUT", labels=(0, 1, 0, 1, 0, -1), names=names, warnings=(f"{WIDE_WORD} is odd.",))
    record = json.loads((folder / "run.json").read_text())
    record["found"] = [f"particles: {WIDE_WORD}particles.cs"]
    (folder / "run.json").write_text(json.dumps(record))
    inner = json.dumps(write_page(folder).read_text(encoding="utf-8")).replace("</", "<\\/")
    outer = f"""<!doctype html><title>none</title><iframe id="frame" style="width:390px;height:800px;border:0"></iframe><script>
    var frame = document.getElementById("frame");
    frame.addEventListener("load", function () {{
      var page = frame.contentDocument.documentElement;
      if (page.clientWidth > 0 && frame.contentDocument.querySelector("main")) {{
        document.title = "FOUND " + JSON.stringify({{ width: page.clientWidth, overflow: page.scrollWidth - page.clientWidth }});
      }}
    }});
    frame.srcdoc = {inner};</script>"""
    found = opened(outer, tmp_path, width=800, dark=False)
    assert 370 <= found["width"] <= 390
    assert found["overflow"] <= 0
