"""The report, and the paper's figures in it."""

import math

import pytest

import attacks
from ape_gan_tf import cells, page, paper, report
from ape_gan_tf.defences import defences_table
from ape_gan_tf.metrics import Row
from ape_gan_tf.page import Page, Picture
from ape_gan_tf.sanity_warning import SanityWarning
from ape_gan_tf.verdict import verdict
from tests.ape_gan_tf.report_rows import (
    EPSILONS,
    all_rows,
    baselines,
    purifier,
    without_purifier,
)


def make_row(**changes):
    return Row(
        **{
            "dataset": "mnist",
            "split": "test",
            "count": 10000,
            "classifier": {"name": "target_c", "fingerprint": "c"},
            "purifier": {"name": "ape_gan_m", "fingerprint": "p"},
            "input": "fgsm",
            "params": {"epsilon": 0.3, "epsilon_min": None},
            "threat_model": "oblivious",
            "crafted_on": "c",
            "seed": 1,
            "target_error": 94.666,
            "purified_error": 2.25,
            **changes,
        }
    )


def benign(name, **changes):
    params = {"variance": 0.05} if name == "gaussian_noise" else {}
    return make_row(
        **{"input": name, "params": params, "threat_model": "benign", **changes}
    )


# Tables 2 and 3 of the paper.
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (benign("clean"), (0.8, 1.2)),
        (benign("gaussian_noise"), (1.7, 1.6)),
        (benign("clean", dataset="cifar10"), (9.9, 10.3)),
        (benign("gaussian_noise", dataset="cifar10"), (11.3, 10.7)),
        (make_row(), (96.3, 2.8)),
        (make_row(params={"epsilon": 0.1}), (35.9, 0.8)),
        (make_row(params={"epsilon": 0.1 + 1e-9}), (35.9, 0.8)),
        (
            make_row(dataset="cifar10", params={"epsilon": 0.4}),
            (87.2, 63.4),
        ),
        # What the paper does not have.
        (make_row(params={"epsilon": 0.15}), None),
        (make_row(params={"epsilon": 0.3, "epsilon_min": 0.0}), None),
        (make_row(split="validation"), None),
        (make_row(threat_model="white_box"), None),
        (make_row(threat_model="transfer"), None),
        (make_row(dataset="digits"), None),
        (make_row(input="iterative_gradient_sign"), None),
        (benign("gaussian_noise", params={"variance": 0.1}), None),
    ],
)
def test_the_papers_errors_belong_to_the_row(row, expected):
    assert paper.errors(row) == expected


def test_the_table_has_the_papers_columns_where_there_are_any():
    rows = [
        benign("clean", target_error=0.56, purified_error=0.62),
        make_row(),
        make_row(threat_model="white_box", purified_error=100.0),
        make_row(purifier=None, purified_error=None),
    ]
    assert report.table(rows).splitlines() == [
        "| input | threat model | images | classifier | purified "
        "| paper: classifier | paper: purified |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        "| clean | benign | 10,000 | 0.56 | 0.62 | 0.8 | 1.2 |",
        "| fgsm, epsilon 0.3 | oblivious | 10,000 | 94.67 | 2.25 "
        "| 96.3 | 2.8 |",
        "| fgsm, epsilon 0.3 | oblivious | 10,000 | 94.67 | - | 96.3 | 2.8 |",
        "| fgsm, epsilon 0.3 | white-box | 10,000 | 94.67 | 100.00 |  |  |",
    ]


def test_the_table_has_no_such_columns_where_the_paper_has_nothing():
    rows = [make_row(dataset="digits", target_top5_error=12.0)]
    assert report.table(rows).splitlines() == [
        "| input | threat model | images | classifier | purified |",
        "| --- | --- | ---: | ---: | ---: |",
        "| fgsm, epsilon 0.3 | oblivious | 10,000 | 94.67 (top-5 12.00) "
        "| 2.25 |",
    ]


def test_a_description_names_the_parameters():
    assert cells.describe_input(benign("clean")) == "clean"
    noise = benign("gaussian_noise")
    assert cells.describe_input(noise) == "gaussian noise, variance 0.05"
    row = make_row(params={"epsilon": 8 / 255, "steps": 2})
    assert cells.describe_input(row) == "fgsm, epsilon 0.03137, steps 2"


def test_a_description_leaves_out_what_is_usual():
    params = attacks.get("pgd", steps=20).params
    row = make_row(input="pgd", params=params)
    assert cells.describe_input(row) == "pgd, epsilon 0.3, steps 20"
    params = attacks.get("cw_l2", target="next").params
    row = make_row(input="cw_l2", params={**params, "case": "best"})
    assert cells.describe_input(row) == "cw l2, target next, case best"
    row = make_row(input="cw_l2", params={**params, "target": None})
    assert cells.describe_input(row) == "cw l2, target none"


def test_the_table_has_the_distances_of_attacks_that_minimise_them(tmp_path):
    attack = {"input": "deepfool", "params": {}, "distance": "l2"}
    rows = [
        make_row(dataset="digits"),
        make_row(**attack, dataset="digits", target_median_distance=1.23456),
        make_row(
            **attack,
            dataset="digits",
            threat_model="white_box",
            target_median_distance=1.5,
            purified_median_distance=math.inf,
        ),
        # A stored white-box set says nothing about the classifier alone.
        make_row(
            **attack,
            dataset="digits",
            threat_model="white_box",
            target_error=None,
            purified_median_distance=0.5,
        ),
    ]
    pairs = [line.split("|")[-3:-1] for line in report.table(rows).splitlines()]
    assert [[cell.strip() for cell in both] for both in pairs] == [
        ["distance: classifier", "distance: purified"],
        ["---:", "---:"],
        ["", ""],
        ["L2 1.235", ""],
        ["L2 1.5", "L2 infinite"],
        ["-", "L2 0.5"],
    ]
    report.write(tmp_path / "report.md", Page(title="A title", rows=rows))
    assert page.DISTANCE_REMARK in (tmp_path / "report.md").read_text()


def test_the_report_is_a_page_with_links_that_work(tmp_path):
    figure = tmp_path / "figures" / "images.png"
    report.write(
        tmp_path / "report.md",
        Page(
            title="A title",
            rows=[make_row()],
            pictures=[Picture("A caption", figure)],
            provenance={"seed": 3},
        ),
    )
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# A title\n")
    assert report.table([make_row()]) in text
    assert paper.REMARKS["mnist"] in text
    assert "![A caption](figures/images.png)" in text
    assert "\n- seed: `3`\n" in text


def full_page(**changes):
    return Page(
        **{
            "title": "A title",
            "rows": all_rows(),
            "baselines": baselines(),
            "warnings": [SanityWarning("zero_gradients", "0 | 0", "hidden")],
            "provenance": {"seed": "`3`"},
            "command": "python -m x \\\n  --y",
            **changes,
        }
    )


def test_the_page_leads_with_the_verdict_and_ends_with_the_command(tmp_path):
    path = tmp_path / "report.md"
    pictures = [Picture("A caption", tmp_path / "x.svg", "d")]
    whole = full_page(pictures=pictures, epsilons=(0.1,))
    report.write(path, whole)
    text = path.read_text()
    order = [
        "# A title\n",
        f"**{verdict(all_rows(), whole.warnings, (0.1,))}**",
        "## Warnings: 1\n\n### zero gradients\n\nSeen: 0 \\| 0\n",
        "## Error rates",
        report.table(all_rows()),
        "## Beside simpler defences",
        "Worst case at epsilon 0.1 (Linf):",
        "## Pictures\n\n![d](x.svg)\n\nA caption\n",
        "## Provenance",
        f"| ape_gan_m | purifier | {purifier()['fingerprint']} |",
        "- seed: `'3'`\n",
        "Purifier jpeg:",
        "## How to reproduce\n\n    python -m x \\\n      --y\n",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert text.endswith(order[-1])
    assert path.read_text().startswith(report.text(whole)[:500])


def test_every_row_is_in_full_in_the_page(tmp_path):
    path = tmp_path / "report.md"
    report.write(path, full_page())
    background = path.read_text().split("Every row, with all parameters")[1]
    lines = [x for x in background.splitlines() if x.startswith("| ")]
    heads = [x for x in lines if x.startswith(("| input", "| ---"))]
    assert len(heads) == 2 * 3  # Of three purifiers.
    assert len(lines) - len(heads) == len(all_rows()) + len(baselines())
    assert "; images: digits, test, the first 500; seed: 1." in background[:80]
    assert (
        "| pgd | white-box | epsilon 0.1, epsilon_min none, start oblivious "
        "fgsm | both | - | 84.20 |" in lines
    )
    assert "gradient bpda" in background


def test_settings_that_differ_have_a_column():
    rows = [make_row(), make_row(seed=2, crafted_on="d" * 64)]
    table = cells.settings_table(rows)
    assert table.caption.endswith("; images: mnist, test, the first 10,000")
    assert [line[3:5] for line in table.lines] == [
        ("classifier", "1"),
        ("d" * 12, "2"),
    ]


def test_worst_cases_come_last_and_stand_out():
    table = cells.figures_table(all_rows()[::-1], is_grouped=True)
    assert [group.is_strong for group in table.groups] == [False] * 4 + [
        True
    ] * 3
    assert table.header[:3] == ("input", "classifier", "purified")
    assert table.caption.endswith("; 500 images")
    assert table.groups[-1].lines[0][:3] == (
        "worst case, epsilon 0.3 (Linf)",
        "100.00",
        "100.00",
    )


def test_a_table_for_groups_has_no_empty_column():
    rows = without_purifier(all_rows())
    table = cells.figures_table(rows, is_grouped=True)
    assert table.header == ("input", "classifier")


def test_a_remark_stands_where_the_figure_would():
    row = make_row(
        threat_model="white_box",
        purified_error=None,
        remark="not attacked adaptively",
    )
    line = report.table([row]).splitlines()[-1]
    assert "| 94.67 | not attacked adaptively |" in line


def test_a_description_names_start_and_gradient():
    row = make_row(start="oblivious fgsm", gradient="bpda")
    described = cells.describe_input(row)
    assert described == "fgsm, epsilon 0.3, from oblivious fgsm, BPDA"


def test_defences_stand_beside_each_other_in_each_ball():
    table = defences_table(full_page())
    assert [group.label for group in table.groups] == [
        f"Worst case at epsilon {epsilon} (Linf)" for epsilon in EPSILONS
    ]
    own = "its own gradient"
    # cells: name, clean, oblivious, white-box, attacked through, time.
    assert table.groups[0].lines == (
        ("ape_gan_m", "0.60", "0.60", "84.20", own, "1.25"),
        ("bits", "0.40", "4.00", "74.00", "BPDA", "0.004"),
        ("jpeg", "0.20", "60.00", "not attacked adaptively", "-", "0.31"),
    )


def test_defences_without_worst_cases_show_single_attacks():
    rows = [row for row in all_rows() if row.input != "worst_case"]
    (group,) = defences_table(full_page(rows=rows, baselines=())).groups
    assert group.label == "Strongest single attack"
    assert group.lines[0][2:4] == ("2.80", "100.00")


def test_defences_are_compared_where_all_were_measured():
    few = [row for row in baselines() if row.params.get("epsilon") != 0.1]
    table = defences_table(full_page(baselines=few))
    assert [group.label[14:25] for group in table.groups] == [
        "epsilon 0.2",
        "epsilon 0.3",
    ]
    table = defences_table(full_page(baselines=()))
    assert len(table.groups) == 3


def test_there_is_no_table_of_defences_with_nothing_to_compare():
    rows = [row for row in all_rows() if row.milliseconds is None]
    assert defences_table(full_page(rows=rows, baselines=())) is None
    bare = without_purifier(all_rows())
    assert defences_table(full_page(rows=bare, baselines=())) is None


def test_a_page_says_whether_there_were_checks(tmp_path):
    path = tmp_path / "report.md"
    report.write(path, full_page(warnings=None))
    assert "No sanity checks were made." in path.read_text()
    report.write(path, full_page(warnings=()))
    assert "The sanity checks gave no warning." in path.read_text()
    assert "Not checked" not in path.read_text()


def test_a_page_names_the_checks_that_could_not_be_made(tmp_path):
    path = tmp_path / "report.md"
    unchecked = ["noise_beats_single_step", "answers_change"]
    for fields in ({}, {"warnings": ()}):
        report.write(path, full_page(unchecked=unchecked, **fields))
        assert (
            "Not checked, for want of figures to compare: noise beats single "
            "step, answers change." in path.read_text()
        )


def test_a_page_is_about_one_purifier():
    with pytest.raises(ValueError, match="one purifier.*got ape_gan_m, bits, "):
        Page(title="A title", rows=[*all_rows(), *baselines()])


def test_names_do_not_become_markup(tmp_path):
    path = tmp_path / "report.md"
    row = make_row(params={"case": "a|b\n<b>"})
    report.write(path, full_page(title="<script>\n# x", rows=[row]))
    text = path.read_text()
    assert text.startswith("# &lt;script> # x\n")
    assert "case a\\|b &lt;b>" in text
    assert "<b>" not in text


def test_the_warning_goes_when_the_white_box_figures_are_there(tmp_path):
    path = tmp_path / "report.md"
    report.write(path, Page(title="A title", rows=[make_row()]))
    assert page.OBLIVIOUS_WARNING in path.read_text()
    rows = [make_row(), make_row(threat_model="white_box")]
    report.write(path, Page(title="A title", rows=rows))
    assert page.OBLIVIOUS_WARNING not in path.read_text()
    row = make_row(threat_model="white_box", purified_error=None, remark="no")
    report.write(path, Page(title="A title", rows=[make_row(), row]))
    assert page.OBLIVIOUS_WARNING in path.read_text()


def test_the_remark_on_cifar10_says_that_the_classifier_is_another(tmp_path):
    path = tmp_path / "report.md"
    rows = [make_row(dataset="cifar10", params={"epsilon": 0.1})]
    report.write(path, Page(title="A title", rows=rows))
    assert "DenseNet40" in path.read_text()
