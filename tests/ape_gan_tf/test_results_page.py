"""The page of results: what stands between its markers."""

from pathlib import Path

import pytest

from ape_gan_tf import results_page, table_report, table_result
from tests.ape_gan_tf.table_results import PROVENANCE, make_result

ROOT = Path(__file__).resolve().parents[2]
ONE, TWO = "results/mnist/table_2.json", "results/mnist/table_targets.json"
RESULT = make_result(
    "mnist", "2", [[0.5, 0.6], [1.9, 1.1]], provenance=PROVENANCE
)


def region(name, content="stale\n"):
    return f"<!-- begin: {name} -->\n{content}<!-- end -->\n"


def made(name, result):
    """What belongs there, in the words of the Markdown report."""
    figure = name.replace(".json", ".png")
    text = table_report.markdown(result, level=3, figure=figure)
    return region(name, f"\n{text}\n")


@pytest.fixture
def page(tmp_path):
    """A page with a region between what people wrote."""
    table_result.write(tmp_path / ONE, RESULT)
    path = tmp_path / "results.md"
    path.write_text(f"# Results\n\nBefore.\n\n{region(ONE)}\nAfter.\n")
    return path


def test_a_region_is_made_of_its_json(page):
    results_page.update(page)
    assert page.read_text() == (
        f"# Results\n\nBefore.\n\n{made(ONE, RESULT)}\nAfter.\n"
    )
    assert "| clean, target C | 10,000 | 0.50 (0.8) |" in page.read_text()
    assert "![Table 2 (mnist): " in page.read_text()
    picture = page.parent / "results" / "mnist" / "table_2.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_made_again_a_page_stays_as_it_is(page):
    results_page.update(page)
    before = page.read_text()
    results_page.check(page)
    results_page.update(page)
    assert page.read_text() == before


def test_each_region_has_its_own_table(page):
    lines = [[0.9, 1.0], [0.5, 1.1], [0.8, 1.2]]
    other = make_result("mnist", "targets", lines)
    table_result.write(page.parent / TWO, other)
    page.write_text(region(TWO) + "Between.\n" + region(ONE, content=""))
    results_page.update(page)
    assert page.read_text() == (
        made(TWO, other) + "Between.\n" + made(ONE, RESULT)
    )


@pytest.mark.parametrize("text", ["", "# Results\n\n| a | b |", "x\n\n"])
def test_a_page_without_regions_stays_as_it_is(tmp_path, text):
    page = tmp_path / "results.md"
    page.write_text(text)
    results_page.check(page)
    results_page.update(page)
    assert page.read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["results.md"]


def test_the_check_writes_nothing_and_says_where_the_page_is_stale(
    page, command, capsys
):
    before = page.read_text()
    words = ("results_page", f"--page={page}")
    assert command(*words, "--check") == 1
    shown = capsys.readouterr().err
    assert f"{page}, line 6, must be as its JSON gives it, ''" in shown
    assert "got 'stale'" in shown and "make results" in shown
    assert page.read_text() == before
    assert command(*words) == 0
    assert command(*words, "--check") == 0


def test_the_check_sees_that_the_figures_have_changed(page):
    results_page.update(page)
    changed = make_result(
        "mnist", "2", [[0.51, 0.6], [1.9, 1.1]], provenance=PROVENANCE
    )
    table_result.write(page.parent / ONE, changed)
    with pytest.raises(ValueError, match=r"0\.51 \(0\.8\).*0\.50 \(0\.8\)"):
        results_page.check(page)


def test_the_check_sees_that_a_picture_is_not_there(page):
    results_page.update(page)
    (page.parent / ONE).with_suffix(".png").unlink()
    with pytest.raises(ValueError, match=r"table_2\.png, which is not there"):
        results_page.check(page)


def test_a_marker_without_its_file_is_named(page):
    page.write_text(region("results/mnist/table_77.json"))
    with pytest.raises(ValueError) as raised:
        results_page.update(page)
    assert str(raised.value) == (
        f"{page}, marker '<!-- begin: results/mnist/table_77.json -->': "
        f"{page.parent / 'results/mnist/table_77.json'} does not exist"
    )


def test_a_marker_of_another_file_is_named(page):
    (page.parent / ONE).write_text('{"version": 1, "rows": []}')
    before = page.read_text()
    with pytest.raises(ValueError) as raised:
        results_page.update(page)
    assert f"marker '<!-- begin: {ONE} -->': " in str(raised.value)
    assert "must be a table of version 1" in str(raised.value)
    assert page.read_text() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"<!-- begin: {ONE} -->\n", "has no '<!-- end -->' for '<!-- begin"),
        ("<!-- end -->\n", "in turn, got '<!-- end -->'"),
        (f"<!-- begin: {ONE} -->\n{region(ONE)}", "in turn, got '<!-- begin"),
        (f"{region(ONE)}<!-- end -->\n", "in turn, got '<!-- end -->'"),
        ("<!-- begin -->\n<!-- end -->\n", "in turn, got '<!-- begin -->'"),
        (
            f"<!-- begin: {ONE} -->\n<!-- end: {ONE} -->\n",
            "in turn, got '<!-- end: ",
        ),
    ],
)
def test_markers_that_are_no_pairs_are_refused(page, text, message):
    page.write_text(text)
    with pytest.raises(ValueError, match=message):
        results_page.update(page)
    assert page.read_text() == text


def test_a_page_that_is_not_there_is_an_error(tmp_path, command, capsys):
    assert command("results_page", f"--page={tmp_path / 'no.md'}") == 1
    assert "no.md" in capsys.readouterr().err


def test_the_page_of_this_tree_is_what_its_json_gives():
    results_page.check(ROOT / "docs" / "results.md")
