"""The reports in headless Chromium: nothing is fetched or run, and nothing is wider than a phone."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from browser import Chromium

from tfapp.evaluation.page_frame import element, name, page, table
from tfapp.evaluation.page_plots import PLOT_STYLE, confusion_table, reliability_plot

pytestmark = pytest.mark.browser
EVIL = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
# Asks the page inside a frame of a phone's width how wide its parts are.
PHONE = """<!doctype html><html><body>
<iframe id="frame" src="report.html" style="width:390px;height:800px;border:0"></iframe>
<script>
window.onload = () => {
  const inside = document.getElementById("frame").contentDocument;
  const root = inside.documentElement;
  const style = getComputedStyle(inside.body);
  document.title = JSON.stringify({
    wide: root.scrollWidth, room: root.clientWidth,
    title: inside.title, back: style.backgroundColor, ink: style.color,
    scripts: inside.scripts.length, images: inside.images.length,
  });
};
</script></body></html>"""


@pytest.fixture(scope="module")
def chromium():
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed: apt-get install chromium")
        pytest.skip("Chromium is not installed")
    return found


def look(chromium, folder, *options):
    """Opens the page in a frame and returns what it tells."""
    (folder / "phone.html").write_text(PHONE)
    command = [
        chromium,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=10000",
        *options,
        "--dump-dom",
        (folder / "phone.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found, done.stdout[:2000]
    return json.loads(found[1])


@pytest.fixture
def written(tmp_path):
    bins = {"rows": [3, 4], "confidence": [0.4, 0.9], "accuracy": [0.3, 0.8]}
    classes = [EVIL, "a class whose name is longer than a phone is wide " * 3, "x" * 200]
    parts = [
        element("h1", EVIL),
        table(
            ["class", "rows", "accuracy", "precision", "recall"], [[name(row), *"1234"] for row in classes]
        ),
        confusion_table(classes, np.arange(9).reshape(3, 3).tolist()),
        element("div", reliability_plot(bins, EVIL), class_="plots"),
        element("pre", "x" * 500),
        element("code", "y" * 500),
    ]
    (tmp_path / "report.html").write_text(page("a report", parts, style=PLOT_STYLE))
    return tmp_path


def test_a_phone_shows_the_page_without_scrolling_sideways_and_nothing_runs(chromium, written):
    found = look(chromium, written)
    assert found["wide"] == found["room"] <= 390
    assert found["title"] == "a report"
    assert (found["scripts"], found["images"]) == (0, 0)


def test_it_is_dark_where_the_reader_wants_it_dark(chromium, written):
    def luminance(colour):
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    light = look(chromium, written, "--blink-settings=preferredColorScheme=1")
    dark = look(chromium, written, "--blink-settings=preferredColorScheme=0")
    assert luminance(light["back"]) > 700 > 100 > luminance(light["ink"]) - 60
    assert luminance(dark["back"]) < 150 < 500 < luminance(dark["ink"])


def test_the_page_of_a_release_fits_a_phone(chromium, release, tmp_path):
    shutil.copy(Path(release.path) / "report.html", tmp_path)
    found = look(chromium, tmp_path)
    assert found["wide"] == found["room"] <= 390
    assert (found["title"], found["scripts"]) == ("tiny 1", 0)


def test_chinese_is_drawn_with_a_chinese_font_and_tells_its_language(chromium, tmp_path):
    fonts = subprocess.run(["fc-list", ":lang=zh-cn", "family"], capture_output=True, text=True, check=True)
    if not fonts.stdout.strip():
        pytest.skip("this machine has no Chinese font: apt-get install fonts-noto-cjk")
    families = {family for line in fonts.stdout.splitlines() for family in line.split(",")}
    rows = [[name("科技（数码）"), "酒店很好，服务员也很热情。"]]
    (tmp_path / "report.html").write_text(page("中文报告", [table(["class", "text"], rows)]), "utf-8")
    browser = Chromium(chromium, str(tmp_path / "profile"))
    try:
        shown = browser.open((tmp_path / "report.html").as_uri())
        assert shown.run("document.title") == "中文报告"
        assert shown.run("[...document.querySelectorAll('[lang=zh]')].map(e => e.textContent)") == [
            "科技（数码）",
            "酒店很好，服务员也很热情。",
        ]
        shown.call("CSS.enable")
        root = shown.call("DOM.getDocument")["root"]["nodeId"]
        cell = shown.call("DOM.querySelector", nodeId=root, selector="td[lang=zh]")["nodeId"]
        used = shown.call("CSS.getPlatformFontsForNode", nodeId=cell)["fonts"]
    finally:
        browser.close()
    assert sum(font["glyphCount"] for font in used) == len("酒店很好，服务员也很热情。")
    assert {font["familyName"] for font in used} <= families
