"""The report, and the paper's figures in it."""

import math

import pytest

import attacks
from ape_gan_tf import paper, report
from ape_gan_tf.metrics import Row


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
        "| fgsm, epsilon 0.3 | white-box | 10,000 | 94.67 | 100.00 |  |  |",
        "| fgsm, epsilon 0.3 | oblivious | 10,000 | 94.67 | - | 96.3 | 2.8 |",
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
    assert report.describe_input(benign("clean")) == "clean"
    noise = benign("gaussian_noise")
    assert report.describe_input(noise) == "gaussian noise, variance 0.05"
    row = make_row(params={"epsilon": 8 / 255, "steps": 2})
    assert report.describe_input(row) == "fgsm, epsilon 0.03137, steps 2"


def test_a_description_leaves_out_what_is_usual():
    params = attacks.get("pgd", steps=20).params
    row = make_row(input="pgd", params=params)
    assert report.describe_input(row) == "pgd, epsilon 0.3, steps 20"
    params = attacks.get("cw_l2", target="next").params
    row = make_row(input="cw_l2", params={**params, "case": "best"})
    assert report.describe_input(row) == "cw l2, target next, case best"
    row = make_row(input="cw_l2", params={**params, "target": None})
    assert report.describe_input(row) == "cw l2, target none"


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
    cells = [line.split("|")[-2] for line in report.table(rows).splitlines()]
    assert [cell.strip() for cell in cells] == [
        "median distance",
        "---:",
        "",
        "L2 1.235",
        "L2 1.5 / infinite",
        "L2 - / 0.5",
    ]
    report.write_report(tmp_path / "report.md", rows, title="A title")
    assert report.DISTANCE_REMARK in (tmp_path / "report.md").read_text()


def test_the_report_is_a_page_with_links_that_work(tmp_path):
    figure = tmp_path / "figures" / "images.png"
    report.write_report(
        tmp_path / "report.md",
        [make_row()],
        title="A title",
        figures=[("A caption", figure)],
        provenance={"seed": 3},
    )
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# A title\n")
    assert report.table([make_row()]) in text
    assert paper.REMARKS["mnist"] in text
    assert "![A caption](figures/images.png)" in text
    assert text.endswith("## Provenance\n\n- seed: `3`\n")


def test_the_warning_goes_when_the_white_box_figures_are_there(tmp_path):
    path = tmp_path / "report.md"
    report.write_report(path, [make_row()], title="A title")
    assert report.OBLIVIOUS_WARNING in path.read_text()
    rows = [make_row(), make_row(threat_model="white_box")]
    report.write_report(path, rows, title="A title")
    assert report.OBLIVIOUS_WARNING not in path.read_text()


def test_the_remark_on_cifar10_says_that_the_classifier_is_another(tmp_path):
    path = tmp_path / "report.md"
    rows = [make_row(dataset="cifar10", params={"epsilon": 0.1})]
    report.write_report(path, rows, title="A title")
    assert "DenseNet40" in path.read_text()
