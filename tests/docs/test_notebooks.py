"""Executes the notebooks, and compares what they print with what is stored."""

import re
from pathlib import Path

import numpy as np
import pytest

for module in ("nbformat", "nbclient", "ipykernel"):
    pytest.importorskip(module, reason=f"{module} is not installed")
import nbformat  # noqa: E402
from nbclient import NotebookClient  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SECONDS = 600
# Error rates of 500 images: another processor rounds a few the other way.
POINTS = 1.0

pytestmark = [pytest.mark.slow, pytest.mark.real_data]


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    return "".join(
        output.text
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )


def pictures(cell):
    return sum("image/png" in output.get("data", ()) for output in cell.outputs)


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def both(request, real_data_dir, tmp_path_factory):
    """A notebook as stored, and as executed in a folder of its own."""
    executed = read(request.param)
    for cell in code_cells(executed):
        cell.outputs = []
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(ROOT))
    # Notebooks draw into their cells, not into files as the tests.
    patch.delenv("MPLBACKEND", raising=False)
    folder = tmp_path_factory.mktemp(request.param.stem)
    with patch.context():
        NotebookClient(
            executed,
            timeout=SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    patch.undo()
    return read(request.param), executed


def test_it_prints_what_is_stored(both):
    for stored, executed in zip(*map(code_cells, both), strict=True):
        number = re.compile(r"\d+\.\d+")
        before, after = printed(stored), printed(executed)
        assert number.sub("#", before) == number.sub("#", after)
        np.testing.assert_allclose(
            np.array(number.findall(after), float),
            np.array(number.findall(before), float),
            rtol=0.0,
            atol=POINTS,
        )


def test_it_draws_what_is_stored(both):
    stored, executed = (list(map(pictures, code_cells(x))) for x in both)
    assert stored == executed
    assert sum(stored) > 0


def test_nothing_but_results_is_stored(both):
    stored, _ = both
    for cell in code_cells(stored):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_links_lead_somewhere(path):
    text = "\n".join(
        cell.source for cell in read(path).cells if cell.cell_type == "markdown"
    )
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert links
    for link in links:
        assert (path.parent / link).exists(), link
