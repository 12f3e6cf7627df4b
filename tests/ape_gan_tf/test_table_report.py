"""A measured table for people: Markdown, the terminal, CSV."""

import csv
import dataclasses
import io

import pytest

from ape_gan_tf import table_report, table_result
from ape_gan_tf.table_names import stand_ins, title
from ape_gan_tf.table_readings import nearer_reading
from ape_gan_tf.table_result import Cell
from tests.ape_gan_tf.table_results import (
    COMMAND,
    LATE,
    PROVENANCE,
    all_missing,
    make_cell,
    make_result,
)

FEW = Cell(ours=2.0, paper=1.6, count=20)
BENIGN = make_result(
    "mnist", "2", [[0.534, 0.625], [1.88, FEW]], provenance=PROVENANCE
)
NONE = [None] * 6


def grid(text):
    """The cells of a Markdown table."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


# Markdown


def test_the_markdown_has_ours_beside_the_papers():
    assert table_report.markdown(BENIGN) == (
        "# Table 2 (mnist): Images that nobody attacked, target C\n"
        "\n"
        "Error rates in percent: ours, and in brackets the paper's.\n"
        "\n"
        "| input | images | target | APE-GAN_m |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| clean, target C | 10,000 | 0.53 (0.8) | 0.62 (1.2) |\n"
        "| Gaussian noise, target C | 10,000 | 1.88 (1.7) "
        "| 2.00 (1.6), 20 images |\n"
        "\n"
        "Made by\n"
        "\n"
        f"    {COMMAND}\n"
        "\n"
        "- seed: 3\n"
        "- commit: 0123456789ab\n"
        "- date: 2031-02-28\n"
        "- seconds: 1,235\n"
        "- versions: keras 9.8.7, numpy 6.5\n"
    )


def test_the_heading_has_the_level_and_the_picture_the_link_asked_for():
    text = table_report.markdown(BENIGN, level=3, figure="a/b.png")
    assert text.startswith("### Table 2 (mnist): ")
    assert f"\n\n![{title(BENIGN)}](a/b.png)\n\n" in text


def test_a_table_without_provenance_ends_with_what_there_is():
    result = dataclasses.replace(BENIGN, provenance={})
    assert table_report.markdown(result).endswith("20 images |\n")
    result = dataclasses.replace(BENIGN, provenance={"seconds": 7.7})
    assert table_report.markdown(result).endswith("\n\n- seconds: 8\n")


def test_the_targets_are_told_by_name_alone():
    result = make_result("mnist", "targets", [[0.77, 1], [0.5, 2], [0.5, 3]])
    assert title(result).startswith("Targets (mnist): Clean images")
    _, _, *lines = grid(table_report.markdown(result))
    assert lines == [
        ["A", "10,000", "0.77 (0.9)", "1.00"],
        ["B", "10,000", "0.50 (0.5)", "2.00"],
        ["C", "10,000", "0.50 (0.8)", "3.00"],
    ]


def test_a_line_counts_the_images_of_its_first_figure():
    one = Cell(ours=0.0, paper=1.6, count=1)
    lines = [[None, make_cell(3.0, 1.2, count=1234)], [FEW, one]]
    _, _, clean, noise = grid(
        table_report.markdown(make_result("mnist", "2", lines))
    )
    assert clean[1:] == ["1,234", "- (0.8)", "3.00 (1.2)"]
    assert noise[1:] == ["20", "2.00 (1.6)", "0.00 (1.6), 1 image"]


def test_a_stand_in_is_named_wherever_the_papers_target_would_be():
    others = {"inception_v3": "mobilenet_v2", "resnet50": "unused | here"}
    lines = [[70.0, 60.0, None, 50.0]] * 4
    result = make_result("image_folder", "4", lines, stand_ins=others)
    text = table_report.markdown(result)
    assert grid(text)[2][0] == (
        "epsilon 4/255, target mobilenet_v2 (not the paper's inception_v3)"
    )
    assert "mobilenet_v2 stands for the paper's inception_v3: " in text
    assert "unused" not in text


def test_stand_ins_are_told_apart_by_whom_they_stand_for():
    others = {"inception_v3": "mobilenet_v2", "resnet50": "mobilenet_v2"}
    lines = [[30.0, None, 9.0, None]] * 2
    result = make_result("image_folder", "targets", lines, stand_ins=others)
    assert [line[0] for line in grid(table_report.markdown(result))[2:]] == [
        "mobilenet_v2 (not the paper's resnet50)",
        "mobilenet_v2 (not the paper's inception_v3)",
    ]


def test_the_adversarially_trained_classifier_can_have_a_stand_in_too():
    other = {"C_adversarial": "a_stranger"}
    with_it = make_result("mnist", "8", [NONE] * 4, stand_ins=other)
    assert stand_ins(with_it) == other
    assert "a_stranger stands for the paper's C_adver" in table_report.markdown(
        with_it
    )
    without = make_result("mnist", "3", [NONE[:2]] * 4, stand_ins=other)
    assert stand_ins(without) == {}


def test_pipes_and_newlines_do_not_break_the_table():
    result = make_result(
        "mnist",
        "2",
        [[Cell(paper=0.8, missing="a |\n  b"), 1.0], [1.0, 1.0]],
        stand_ins={"C": "x|y\nz"},
    )
    text = table_report.markdown(result)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.replace("\\|", "").count("|") for line in lines] == [5] * 4
    assert "x\\|y z (not the paper's C)" in lines[2]
    assert "\n- a | b: clean (target)\n" in text


# What is missing


def test_missing_cells_are_grouped_by_their_reason():
    absent = Cell(missing="DIR holds no weights", paper=1.0)
    lines = [
        [1.0, None],
        [None, None],
        [absent, 1.0],
        [1.0, None],
        *[[1.0, 1.0]] * 3,
    ]
    text = table_report.markdown(make_result("mnist", "1", lines))
    assert text.endswith(
        "\n\nMissing:\n\n"
        f"- {LATE}: L-BFGS (APE-GAN_m); FGSM; JSMA (APE-GAN_m)\n"
        "- DIR holds no weights: DeepFool (target)\n"
    )


def test_a_table_of_which_all_is_missing_still_has_the_papers_figures():
    text = table_report.markdown(all_missing("mnist", "2"))
    assert grid(text)[2:] == [
        ["clean, target C", "-", "- (0.8)", "- (1.2)"],
        ["Gaussian noise, target C", "-", "- (1.7)", "- (1.6)"],
    ]
    assert text.endswith(f"\n\nMissing:\n\n- {LATE}: all\n")


def test_neither_figure_is_a_dash():
    lines = [[None, None]] * 3
    text = table_report.markdown(make_result("mnist", "targets", lines))
    assert grid(text)[2] == ["A", "-", "- (0.9)", "-"]


def test_a_cell_that_is_missing_without_a_reason_is_listed():
    result = make_result("mnist", "2", [[Cell(), 1.0], [1.0, 1.0]])
    text = table_report.markdown(result)
    assert text.endswith("- no reason is known: clean (target)\n")


# Which reading comes nearer


def of_table_8(lines):
    """Of the paper: 1.6, 0.6 / 3.4, 1.0 / 6.6, 2.6 / 59.8, 17.7."""
    return make_result("mnist", "8", [[0.0, 0.0, *line] for line in lines])


def test_the_nearer_reading_is_that_of_the_smaller_mean_difference():
    lines = [
        [1.0, 0.6, 2.6, 1.6],  # 0.6, 0.0 and 1.0, 1.0
        [3.4, 2.0, 5.4, 1.0],  # 0.0, 1.0 and 2.0, 0.0
        [None, None, 90.0, 90.0],
        [0.0, None, None, 0.0],
    ]
    # 1.6 / 4 and 4 / 4.
    assert nearer_reading(of_table_8(lines)) == (
        "Images crafted on the plain target come nearer to the paper's "
        "figures: 0.40 points off on average, against 1.00 crafted on the "
        "adversarially trained classifier (4 cells each)."
    )
    swapped = [[*line[2:], *line[:2]] for line in lines]
    assert nearer_reading(of_table_8(swapped)) == (
        "Images crafted on the adversarially trained classifier come nearer "
        "to the paper's figures: 0.40 points off on average, against 1.00 "
        "crafted on the plain target (4 cells each)."
    )


def test_a_single_cell_can_decide():
    lines = [[1.6, None, 2.6, None], NONE[:4], NONE[:4], NONE[:4]]
    sentence = nearer_reading(of_table_8(lines))
    assert "0.00 points off on average, against 1.00 " in sentence
    assert sentence.endswith("(1 cell each).")


def test_equal_differences_are_called_equal():
    lines = [[2.1, 0.6, 1.1, 0.6], NONE[:4], NONE[:4], NONE[:4]]
    assert nearer_reading(of_table_8(lines)) == (
        "Both readings are equally near to the paper: 0.25 points off on "
        "average (2 cells each)."
    )


def test_where_the_paper_has_no_figure_there_is_nothing_to_be_near_to():
    # Table 9's caption says on what its images were crafted.
    lines = [[1.0, 2.0, 3.0, 4.0]] * 8
    assert nearer_reading(make_result("mnist", "9", lines)) is None
    # On CIFAR-10 the paper has these for FGSM and JSMA only.
    lines = [[1.0] * 6, NONE, [1.0] * 6, NONE, *[[1.0] * 6] * 3]
    assert nearer_reading(make_result("cifar10", "7", lines)) is None


def test_different_numbers_of_images_are_told():
    few = Cell(ours=2.6, paper=1.6, count=20)
    lines = [[1.0, 1.0, 1.6, None, few, None], *[NONE] * 3]
    sentence = nearer_reading(make_result("mnist", "8", lines))
    assert sentence.endswith(
        "0.00 points off on average, against 1.00 crafted on the adversarially "
        "trained classifier (1 cell each, some of different numbers of images)."
    )


def test_with_stand_ins_there_is_nothing_to_be_near_to():
    lines = [[1.0] * 6] * 4
    others = {"C": "somebody"}
    result = make_result("mnist", "8", lines, stand_ins=others)
    assert nearer_reading(result) is None


def test_a_table_without_readings_has_no_such_sentence():
    assert nearer_reading(BENIGN) is None
    assert nearer_reading(all_missing("mnist", "7")) is None


def test_the_sentence_is_below_the_notes_of_its_table():
    result = of_table_8([[1.0, 1.0, 1.0, 1.0]] * 4)
    text = table_report.markdown(result)
    (note,) = result.table.notes
    assert f"\n\n{note}\n\nImages crafted on " in text or (
        f"\n\n{note}\n\nBoth readings" in text
    )


# The terminal


def test_the_text_is_aligned():
    result = dataclasses.replace(BENIGN, provenance={"command": COMMAND})
    assert table_report.text(result).splitlines() == [
        "Table 2 (mnist): Images that nobody attacked, target C",
        "",
        "Error rates in percent: ours, and in brackets the paper's.",
        "",
        "input                     images      target       APE-GAN_m",
        "------------------------  ------  ----------  --------------",
        "clean, target C           10,000  0.53 (0.8)      0.62 (1.2)",
        "Gaussian noise, target C  10,000  1.88 (1.7)  2.00 (1.6), 20",
        "                                                      images",
        "",
        "Made by",
        "",
        f"    {COMMAND}",
    ]


@pytest.mark.parametrize("name", ["1", "7", "8", "9"])
def test_the_text_of_a_wide_table_fits_into_a_wide_terminal(name):
    result = all_missing("mnist", name)
    lines = table_report.text(result).splitlines()
    assert max(map(len, lines)) <= 132
    prose = table_report.text(result).partition("\n\nThe paper does")[2]
    assert all(len(line) <= 80 for line in prose.splitlines())


def test_the_text_says_what_the_markdown_says():
    lines = [[5.0, 4.0, 3.0, 2.0, None, 1.0]] * 4
    result = make_result("mnist", "8", lines, provenance=PROVENANCE)
    markdown = table_report.markdown(result)
    said = table_report.text(result).split()
    below = markdown.partition(result.table.notes[0])
    assert said[-len((below[1] + below[2]).split()) :] == (
        (below[1] + below[2]).split()
    )
    assert said.count("5.00") == markdown.count("5.00") == 4


# CSV


def test_the_csv_has_a_record_for_each_cell():
    lines = [
        [Cell(missing='no "weights", none', paper=0.8), 0.62],
        [1.875, FEW],
    ]
    result = make_result("mnist", "2", lines, stand_ins={"C": "other"})
    text = table_report.csv_text(result)
    records = list(csv.DictReader(io.StringIO(text)))
    assert len(records) == 4
    assert records[0] == {
        "table": "2",
        "dataset": "mnist",
        "input": "clean",
        "target": "C",
        "stand_in": "other",
        "crafted_on": "",
        "column": "target",
        "ours": "",
        "paper": "0.8",
        "images": "",
        "missing": 'no "weights", none',
    }
    assert [
        (x["column"], x["ours"], x["paper"], x["images"]) for x in records[1:]
    ] == [
        ("APE-GAN_m", "0.62", "1.2", "10000"),
        ("target", "1.875", "1.7", "10000"),
        ("APE-GAN_m", "2.0", "1.6", "20"),
    ]


def test_the_csv_tells_the_two_readings_apart():
    text = table_report.csv_text(all_missing("mnist", "9"))
    records = list(csv.DictReader(io.StringIO(text)))
    assert len(records) == 32
    assert [record["crafted_on"] for record in records[:4]] == [
        "target",
        "target",
        "hardened",
        "hardened",
    ]
    papers = [record["paper"] for record in records[:4]]
    assert papers == ["32.0", "1.9", "", ""]
    assert {record["paper"] for record in records[16:]} == {""}
    assert "\r" not in text


# The files


def test_all_files_of_a_table_are_written(tmp_path):
    directory = tmp_path / "new" / "tables"
    table_report.write_all(directory, BENIGN)
    names = sorted(path.name for path in directory.iterdir())
    assert names == [
        "table_2.csv",
        "table_2.json",
        "table_2.md",
        "table_2.png",
    ]
    assert table_result.read(directory / "table_2.json") == BENIGN
    csv_file = directory / "table_2.csv"
    assert csv_file.read_text() == table_report.csv_text(BENIGN)
    markdown = (directory / "table_2.md").read_text()
    assert markdown == table_report.markdown(BENIGN, figure="table_2.png")


def test_a_file_that_is_there_is_replaced(tmp_path):
    table_report.write_all(tmp_path, all_missing("mnist", "2"))
    before = (tmp_path / "table_2.png").read_bytes()
    table_report.write_all(tmp_path, BENIGN)
    assert table_result.read(tmp_path / "table_2.json") == BENIGN
    assert (tmp_path / "table_2.png").read_bytes() != before
