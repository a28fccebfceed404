"""The report in a real browser: no error, nothing fetched from elsewhere, no sideways scrolling."""

import json
import shutil
import subprocess
from pathlib import Path

import made_up
import made_up_spectra
import pytest

from raylab.report import html

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not BROWSER, reason="no Chromium: apt-get install chromium"),
]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
]
PROBE = """<script>
addEventListener("load", () => {
  const root = document.documentElement, right = e => e.getBoundingClientRect().right;
  const beyond = [...document.querySelectorAll("main *")].filter(e => right(e) > innerWidth + 1);
  const drawn = [...document.querySelectorAll("figure svg")].filter(e => e.getBoundingClientRect().height > 80);
  const said = {width: innerWidth, sideways: root.scrollWidth - innerWidth, drawn: drawn.length,
                beyond: beyond.slice(0, 3).map(e => e.tagName + "." + e.className)};
  parent.postMessage(JSON.stringify(said), "*");
});
</script>"""
# A window has a least width; a frame does not.
FRAME = """<!doctype html><link rel="icon" href="data:,"><body>
<script>addEventListener("message", event => { document.body.textContent = "FOUND" + event.data + "END"; });</script>
<iframe src="{page}" width="{width}" height="900" style="border: 0"></iframe></body>"""


@pytest.fixture(scope="module", params=["finished", "unfinished", "spectra"])
def report(request, tmp_path_factory):
    if request.param == "spectra":
        models = {f"gpt-{blocks}": made_up_spectra.analyzed(made_up_spectra.gpt(blocks)) for blocks in (2, 12)}
        return html.write(made_up_spectra.folder(tmp_path_factory.mktemp("spectra"), models))
    share = 1.0 if request.param == "finished" else 0.3
    return html.write(made_up.folder(tmp_path_factory.mktemp(request.param), models=8, share=share))


def browse(page: Path, tmp_path: Path, *flags: str) -> tuple[str, list[str]]:
    """The page's DOM after loading, and what the page said on the console: errors, refused requests."""
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def probed(report: Path, name: str, more: str = "") -> Path:
    """A copy of the report with the probe; the report's own policy refuses any other script or request."""
    text = report.read_text()
    assert "default-src 'none'" in text
    text = text.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    copy = report.with_name(name)
    copy.write_text(text.replace("</body>", more + PROBE + "</body>"))
    return copy


@pytest.mark.parametrize("width", [360, 768, 1130, 1280])
def test_page_loads_clean_at_every_width(report, tmp_path, width):
    page = probed(report, "probed.html")
    frame = report.with_name("frame.html")
    frame.write_text(FRAME.replace("{page}", page.name).replace("{width}", str(width)))
    dom, console = browse(frame, tmp_path, "--window-size=1400,900", "--virtual-time-budget=5000", "--dump-dom")
    assert console == []
    found = json.loads(dom.partition("FOUND")[2].partition("END")[0])
    assert found == {"width": width, "sideways": 0, "beyond": [], "drawn": report.read_text().count("<svg")}


def test_a_request_to_elsewhere_would_be_noticed(report, tmp_path):
    page = probed(report, "fetching.html", '<img src="https://example.invalid/pixel.png">')
    _, console = browse(page, tmp_path, "--dump-dom")
    assert len(console) == 1 and "Content Security Policy" in console[0]


def test_light_and_dark_differ_and_are_not_blank(report, tmp_path):
    from matplotlib.image import imread

    shades = []
    for scheme in ("1", "0"):  # light, dark
        picture = tmp_path / f"{scheme}.png"
        browse(
            report, tmp_path, "--window-size=1280,1600", f"--blink-settings=preferredColorScheme={scheme}",
            f"--screenshot={picture}",
        )  # fmt: skip
        pixels = imread(picture)[..., :3]
        assert pixels.std() > 0.03
        shades.append(pixels.mean())
    assert shades[0] > 0.85 and shades[1] < 0.25
