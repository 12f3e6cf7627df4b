"""The paper's tables, against its figures typed once more."""

import pytest

import attacks
from ape_gan_tf import paper

# As the paper prints them, one line for each of the two or three datasets.
TABLE_1 = """
L-BFGS    93.4  2.2   92.7 19.9   93.3 42.9
FGSM      96.3  2.8   77.8 26.4   72.9 40.1
DeepFool  97.1  2.2   98.3 19.2   98.4 45.9
JSMA      97.8 38.6   94.1 38.3   98.7 45.0
CW-L0    100.0 27.0  100.0 46.9  100.0 29.4
CW-L2    100.0  1.5  100.0 30.5   99.7 26.1
CW-Linf  100.0  1.2  100.0 32.2  100.0 27.0
"""
TABLE_2 = """
clean   0.8 1.2   9.9 10.3  22.9 24.0
noise   1.7 1.6  11.3 10.7  25.2 24.5
"""
TABLE_3 = """
0.1  35.9  0.8  77.8 26.4
0.2  86.0  1.1  84.7 45.2
0.3  96.3  2.8  86.3 55.9
0.4  98.0 21.0  87.2 63.4
"""
TABLE_4 = """
4   72.2 38.0  41.7 21.0
8   72.9 40.1  42.3 22.5
12  73.4 41.2  43.4 22.9
16  74.8 42.4  44.0 23.6
"""
TABLE_7 = """
L-BFGS    93.4  2.2  2.6  2.0   92.7 19.0    -    -
FGSM      96.3  2.8  6.6  2.6   77.8 26.4 12.2 23.7
DeepFool  97.1  2.2  3.7  2.1   98.3 19.2    -    -
JSMA      97.8 38.6 33.6 21.0   94.1 38.3 55.3 32.3
CW-L0    100.0 27.0 15.5  9.5  100.0 46.9    -    -
CW-L2    100.0  1.5  2.5  1.1  100.0 30.5    -    -
CW-Linf  100.0  1.2  0.7  0.5  100.0 32.2    -    -
"""
TABLE_8 = """
0.1  35.9  0.8  1.6  0.6  77.8 26.4 12.2 23.7
0.2  86.0  1.1  3.4  1.0  84.7 45.2 39.6 36.4
0.3  96.3  2.8  6.6  2.6  86.3 55.9 73.7 53.7
0.4  98.0 21.0 59.8 17.7  87.2 63.4 81.7 63.2
"""
TABLE_9 = """
0.1  32.0  1.9  72.6 26.5
0.2  82.5  2.5  82.5 38.3
0.3  84.7  4.5  86.5 51.7
0.4  94.5 22.3  88.0 71.0
"""
DATASETS = ("mnist", "cifar10", "image_folder")
ALL = [table for dataset in DATASETS for table in paper.tables(dataset)]


def printed(text, dataset, across):
    """The lines of a table, as far as they are about the dataset."""
    start = DATASETS.index(dataset) * across
    return [
        tuple(
            None if word == "-" else float(word)
            for word in line.split()[1:][start : start + across]
        )
        for line in text.strip().splitlines()
    ]


def identify(table):
    return f"{table.dataset}-{table.name}"


@pytest.mark.parametrize("dataset", DATASETS)
def test_table_1_is_the_papers(dataset):
    table = paper.find(dataset, "1")
    assert list(table.figures) == printed(TABLE_1, dataset, 2)
    lines = TABLE_1.strip().splitlines()
    assert [x.label for x in table.inputs] == [x.split()[0] for x in lines]


@pytest.mark.parametrize("dataset", DATASETS)
def test_table_2_is_the_papers(dataset):
    table = paper.find(dataset, "2")
    assert list(table.figures) == printed(TABLE_2, dataset, 2)
    assert [x.name for x in table.inputs] == ["clean", "gaussian_noise"]
    assert dict(table.inputs[1].params) == {"variance": 0.05}


@pytest.mark.parametrize("dataset", DATASETS[:2])
def test_table_3_is_the_papers(dataset):
    table = paper.find(dataset, "3")
    assert list(table.figures) == printed(TABLE_3, dataset, 2)
    assert [x.name for x in table.inputs] == ["fgsm"] * 4
    epsilons = [dict(x.params)["epsilon"] for x in table.inputs]
    assert epsilons == [0.1, 0.2, 0.3, 0.4]


def test_table_4_is_the_papers():
    table = paper.find("image_folder", "4")
    (rows,) = [
        [tuple(map(float, x.split()[1:])) for x in TABLE_4.strip().split("\n")]
    ]
    assert list(table.figures) == rows
    epsilons = [255 * dict(x.params)["epsilon"] for x in table.inputs]
    assert epsilons == pytest.approx([4, 8, 12, 16])
    assert [
        (column.is_purified, column.is_top5) for column in table.columns
    ] == [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize(
    ("name", "text"), [("7", TABLE_7), ("8", TABLE_8)], ids=["7", "8"]
)
@pytest.mark.parametrize("dataset", DATASETS[:2])
def test_tables_7_and_8_have_the_papers_figures_for_both_readings(
    dataset, name, text
):
    table = paper.find(dataset, name)
    rows = printed(text, dataset, 4)
    assert [line[:4] for line in table.figures] == rows
    assert [line[4:] for line in table.figures] == [row[2:] for row in rows]
    assert [
        (column.is_purified, column.is_hardened, column.crafted_on)
        for column in table.columns
    ] == [
        (False, False, "target"),
        (True, False, "target"),
        (False, True, "target"),
        (True, True, "target"),
        (False, True, "hardened"),
        (True, True, "hardened"),
    ]


@pytest.mark.parametrize("dataset", DATASETS[:2])
def test_table_9_has_the_papers_figures_and_a_line_of_ours_for_each(dataset):
    table = paper.find(dataset, "9")
    rows = printed(TABLE_9, dataset, 2)
    assert list(table.figures) == [
        *((*row, None, None) for row in rows),
        *[(None,) * 4] * 4,
    ]
    params = [dict(line.params) for line in table.inputs]
    assert [each["alpha"] for each in params] == [0.1, 0.2, 0.3, 0.4] * 2
    assert [each["steps"] for each in params] == [2] * 8
    assert [each["epsilon"] for each in params] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 0.1, 0.2, 0.3, 0.4]
    )
    assert [
        (column.is_purified, column.crafted_on) for column in table.columns
    ] == [
        (False, "target"),
        (True, "target"),
        (False, "hardened"),
        (True, "hardened"),
    ]
    assert all(column.is_hardened for column in table.columns)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("mnist", {"A": (0.9,), "B": (0.5,), "C": (0.8,)}),
        ("cifar10", {"resnet18": (7.1,), "D": (20.2,), "densenet40": (9.9,)}),
        (
            "image_folder",
            {"resnet50": (24.4, 7.2), "inception_v3": (22.9, 6.1)},
        ),
    ],
)
def test_the_clean_errors_are_those_of_section_4_1_2(dataset, expected):
    table = paper.find(dataset, "targets")
    assert [line.target for line in table.inputs] == list(expected)
    for line, figures in zip(table.inputs, table.figures, strict=True):
        columns = zip(table.columns, figures, strict=True)
        alone = [x for column, x in columns if not column.is_purified]
        assert tuple(alone) == expected[line.target]
        given = [figure for figure in figures if figure is not None]
        assert len(given) == len(alone)
        assert (line.name, line.params) == ("clean", ())


@pytest.mark.parametrize(
    ("dataset", "fgsm_and_jsma", "lbfgs_and_deepfool", "cw", "epsilon"),
    [
        ("mnist", "C", "A", "B", 0.3),
        ("cifar10", "densenet40", "resnet18", "D", 0.1),
        ("image_folder", "inception_v3", "resnet50", "inception_v3", 8 / 255),
    ],
)
def test_each_attack_is_on_the_papers_target_for_it(
    dataset, fgsm_and_jsma, lbfgs_and_deepfool, cw, epsilon
):
    for table in paper.tables(dataset):
        if table.name in ("1", "7"):
            assert [(line.name, line.target) for line in table.inputs] == [
                ("lbfgs", lbfgs_and_deepfool),
                ("fgsm", fgsm_and_jsma),
                ("deepfool", lbfgs_and_deepfool),
                ("jsma", fgsm_and_jsma),
                ("cw_l0", cw),
                ("cw_l2", cw),
                ("cw_linf", cw),
            ]
            assert dict(table.inputs[1].params) == {"epsilon": epsilon}


@pytest.mark.parametrize("dataset", DATASETS)
def test_tables_of_fgsm_and_benign_images_are_about_its_target(dataset):
    target = {"mnist": "C", "cifar10": "densenet40"}.get(
        dataset, "inception_v3"
    )
    for table in paper.tables(dataset):
        if table.name in ("2", "3", "4", "8", "9"):
            assert {line.target for line in table.inputs} == {target}
    assert paper.hardened(dataset) == f"{target}_adversarial"


@pytest.mark.parametrize("table", ALL, ids=identify)
def test_a_table_is_a_grid_whose_labels_tell_its_cells_apart(table):
    assert len(table.figures) == len(table.inputs)
    assert {len(line) for line in table.figures} == {len(table.columns)}
    lines = [line.label for line in table.inputs]
    assert len(set(lines)) == len(lines)
    columns = [column.label for column in table.columns]
    assert len(set(columns)) == len(columns)


@pytest.mark.parametrize("table", ALL, ids=identify)
def test_every_attack_of_a_table_is_one_of_ours_with_these_parameters(table):
    for line in table.inputs:
        if line.name not in ("clean", "gaussian_noise"):
            attack = attacks.get(line.name, **dict(line.params))
            found = {name: attack.params[name] for name, _ in line.params}
            assert found == pytest.approx(dict(line.params))


@pytest.mark.parametrize("table", ALL, ids=identify)
def test_every_classifier_of_a_table_is_listed(table):
    known = paper.classifiers(table.dataset)
    assert {line.target for line in table.inputs} <= set(known)
    if any(column.is_hardened for column in table.columns):
        assert paper.hardened(table.dataset) in known


def test_the_tables_come_in_the_papers_order():
    names = [[x.name for x in paper.tables(dataset)] for dataset in DATASETS]
    assert names[0] == names[1] == ["targets", "1", "2", "3", "7", "8", "9"]
    assert names[2] == ["targets", "1", "2", "4"]


def test_what_the_paper_does_not_have_is_not_found():
    with pytest.raises(KeyError, match="4"):
        paper.find("mnist", "4")
    with pytest.raises(KeyError, match="digits"):
        paper.tables("digits")
