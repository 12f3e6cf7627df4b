"""The page as a file: what is in it, and what a browser makes of it."""

import dataclasses
import html
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ape_gan_tf import cells, curves, html_report
from ape_gan_tf.page import Page, Picture
from ape_gan_tf.sanity_warning import SanityWarning
from ape_gan_tf.verdict import verdict
from tests.ape_gan_tf.report_rows import (
    all_rows,
    baselines,
    make_row,
    without_purifier,
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
VOID = ("meta", "img")
HOSTILE = "<script>alert('1')</script>\"'&"
WARNINGS = (
    SanityWarning("zero_gradients", "99.0 % are 0", "the attack was blind"),
    SanityWarning("noise_beats_fgsm", "9.2 % over 2.8 %", "it is broken"),
)


class Parsed(HTMLParser):
    """Tags in their order, with their attributes and the text in them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.lines, self._open = [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.lines.append([])
        elif tag in ("td", "th"):
            self.lines[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self._open):
            self.lines[-1][-1] += data

    def named(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    grid = np.random.default_rng(0).integers(0, 255, (1200, 1500), np.uint8)
    Image.fromarray(grid).save(folder / "images.png")
    found = curves.draw(folder / "curves.svg", all_rows())
    return Page(
        title="ape_gan_m before target_c, digits",
        rows=all_rows(),
        baselines=baselines(),
        pictures=[
            Picture("Curves", folder / "curves.svg", curves.describe(found)),
            Picture("Images", folder / "images.png"),
        ],
        warnings=WARNINGS,
        provenance={"seed": 1, "tensorflow": "2.21.0", "commit": "a" * 40},
        command="python -m ape_gan_tf.evaluate --flagfile=flags.txt",
    )


@pytest.fixture(scope="module")
def text(page):
    return html_report.html(page)


def changed(page, **changes):
    return dataclasses.replace(page, **changes)


def test_the_file_is_well_formed_and_says_what_it_is(text):
    parsed = Parsed(text)
    assert text.startswith("<!DOCTYPE html>\n")
    assert parsed.named("html") == [{"lang": "en"}]
    assert len(parsed.named("h1")) == len(parsed.named("main")) == 1
    ids = [each["id"] for _, each in parsed.tags if "id" in each]
    assert len(ids) == len(set(ids))
    for section in parsed.named("section"):
        assert section["aria-labelledby"] in ids
    tables = parsed.named("table")
    assert len(tables) == len(parsed.named("caption")) == 4
    assert all("scope" in each for each in parsed.named("th"))


def test_nothing_is_loaded_and_nothing_runs(text):
    parsed = Parsed(text)
    policy = parsed.named("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert "script" not in policy
    assert "://" not in text and "url(" not in text and "@import" not in text
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "link", "iframe", "object", "form", "base"}
    attributes = {name for _, each in parsed.tags for name in each}
    assert not any(name.startswith("on") for name in attributes)
    assert not attributes & {"href", "srcset", "action", "style"}


def test_pictures_are_in_the_file_and_described(text, page):
    pictures = Parsed(text).named("img")
    kinds = [each["src"].partition(";base64,")[0] for each in pictures]
    assert kinds == ["data:image/svg+xml", "data:image/png"]
    assert pictures[0]["alt"] == page.pictures[0].description
    assert pictures[1]["alt"] == "Images"


def test_the_verdict_comes_first_and_then_the_warnings(text, page):
    parts = [
        html.escape(page.title) + "</h1>",
        verdict(page.rows, WARNINGS).replace(" %", "\xa0%"),
        "2 warnings: read before the figures",
        "Warning 1: zero gradients",
        "99.0\xa0% are 0",
        "the attack was blind",
        "Warning 2: noise beats fgsm",
        "Error rates</h2>",
        "Beside simpler defences</h2>",
        "Pictures</h2>",
        "Provenance</h2>",
        "How to reproduce</h2>",
        "python -m ape_gan_tf.evaluate",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_every_row_is_there(text, page):
    lines = [tuple(line) for line in Parsed(text).lines]
    figures = cells.figures_table(page.rows, is_grouped=True)
    settings = cells.settings_table(page.all_rows)
    assert len(figures.lines) == len(page.rows)
    assert len(settings.lines) == len(page.rows) + len(page.baselines)
    for line in (*figures.lines, *settings.lines):
        assert line in lines
    for row in page.all_rows:
        for network in (row.classifier, row.purifier):
            assert network["fingerprint"] in text


def test_what_is_missing_is_left_out(page):
    rows = without_purifier(page.rows)
    text = html_report.html(Page(title="bare", rows=rows))
    parsed = Parsed(text)
    assert "Without a purifier, an attacker" in text
    assert "No sanity checks were made." in text
    assert len(parsed.named("section")) == 2  # Error rates and provenance.
    assert "warning" not in text.partition("<body>")[2]
    quiet = html_report.html(changed(page, warnings=()))
    assert "The sanity checks gave no warning." in quiet
    assert "Not checked" not in quiet
    partly = html_report.html(changed(page, unchecked=["answers_change"]))
    assert "figures to compare: answers change." in partly


def test_names_do_not_become_markup(page):
    row = make_row(
        HOSTILE,
        params={HOSTILE: HOSTILE},
        classifier={"name": HOSTILE, "fingerprint": HOSTILE},
        purified_error=None,
        remark=HOSTILE,
    )
    text = html_report.html(
        changed(
            page,
            title=HOSTILE,
            rows=[row],
            baselines=[row],
            warnings=[SanityWarning(HOSTILE, HOSTILE, HOSTILE)],
            pictures=[Picture(HOSTILE, page.pictures[0].path, HOSTILE)],
            provenance={HOSTILE: HOSTILE},
            command=HOSTILE,
        )
    )
    parsed = Parsed(text)
    assert "<script" not in text
    assert parsed.named("img")[0]["alt"] == HOSTILE
    assert any(HOSTILE in cell for line in parsed.lines for cell in line)


def test_a_picture_of_another_kind_is_refused(page, tmp_path):
    path = tmp_path / "x.gif"
    path.write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match="suffix must be one of.*png.*gif"):
        html_report.write(
            tmp_path / "report.html",
            changed(page, pictures=[Picture("x", path)]),
        )
    assert not (tmp_path / "report.html").exists()


@pytest.fixture
def browse(tmp_path):
    """Runs the browser on a file; returns what it printed and complained."""
    if BROWSER is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")

    def run(path, *words):
        done = subprocess.run(
            [
                BROWSER,
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
                "--v=0",
                f"--user-data-dir={tmp_path / 'profile'}",
                *words,
                path.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout, done.stderr

    return run


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("mode", ["", "--force-dark-mode"])
def test_a_browser_shows_it_and_has_nothing_to_complain_of(
    page, tmp_path, browse, width, mode
):
    path, picture = tmp_path / "report.html", tmp_path / "page.png"
    html_report.write(path, page)
    _, log = browse(
        path,
        f"--window-size={width},900",
        f"--screenshot={picture}",
        *filter(None, [mode]),
    )
    assert "CONSOLE" not in log
    with Image.open(picture) as image:
        assert image.size == (width, 900)
        pixels = np.asarray(image.convert("L"))
    assert pixels.std() > 20
    assert (np.median(pixels) < 64) == bool(mode)


@pytest.mark.parametrize("width", [1280, 500, 375])
def test_wide_things_scroll_in_their_own_box(page, tmp_path, browse, width):
    # A copy that may run a script, in a frame as wide as a phone: a window
    # of a browser need not become as narrow as it is asked to.
    tell = (
        "<script>addEventListener('load', () => { const root = "
        "document.documentElement; parent.postMessage([root.scrollWidth, "
        "root.clientWidth, [...document.images].every(x => x.naturalWidth), "
        "[...document.querySelectorAll('.scroll')].filter(x => x.scrollWidth "
        "> x.clientWidth).length].join(' '), '*'); });</script>"
    )
    text = html_report.html(page)
    text = re.sub(r'<meta http-equiv="Content-Sec[^>]*>', "", text)
    inner = tmp_path / "inner.html"
    inner.write_text(text.replace("</body>", tell + "</body>"), "utf-8")
    outer = tmp_path / "outer.html"
    outer.write_text(
        "<script>addEventListener('message', x => document.title = x.data);"
        f"</script><iframe src='inner.html' width='{width}' height='800' "
        "style='border:0'></iframe>"
    )
    printed, _ = browse(outer, "--virtual-time-budget=5000", "--dump-dom")
    (title,) = re.findall("<title>(.*)</title>", printed)
    scrolled, shown, has_pictures, boxes = title.split()
    assert int(shown) == width
    assert int(scrolled) == width
    assert has_pictures == "true"
    assert (int(boxes) > 3) == (width < 600)
