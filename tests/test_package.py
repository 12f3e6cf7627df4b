"""What holds for the four packages together, and how they are installed."""

import ast
import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What each package may import of the others.
MAY_IMPORT = {
    "data": set(),
    "models": {"data"},
    "attacks": {"data", "models"},
    "ape_gan_tf": {"data", "models", "attacks"},
}
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in MAY_IMPORT
    for path in (ROOT / package).rglob("*.py")
)


def parse(module):
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), module)


def imported_packages(tree):
    """Top-level names imported anywhere in a module, in functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_each_of_the_four_packages_has_modules():
    assert {module.split("/")[0] for module in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    package = module.split("/")[0]
    ours = imported_packages(parse(module)) & set(MAY_IMPORT)
    assert ours <= MAY_IMPORT[package] | {package}


def test_an_import_inside_a_function_counts():
    tree = ast.parse("def f():\n    from attacks.base import Attack")
    assert imported_packages(tree) == {"attacks"}


@pytest.mark.parametrize("module", MODULES)
def test_errors_are_raised_and_not_asserted(module):
    lines = [
        node.lineno
        for node in ast.walk(parse(module))
        if isinstance(node, ast.Assert)
    ]
    assert lines == []


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module):
    assert ast.get_docstring(parse(module))


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory):
    """The files of a wheel built, without a network, from a copy."""
    setuptools = importlib.metadata.version("setuptools")
    if int(setuptools.split(".")[0]) < 77:
        pytest.skip(f"building needs setuptools 77, here is {setuptools}")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A copy, since a build writes into its source, and takes old files
    # that an earlier build left there.
    for name in (*MAY_IMPORT, "flags"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        + ["--no-index", "--no-build-isolation"]
        + ["--wheel-dir", str(folder), str(source)],
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module(wheel_names):
    packed = {name for name in wheel_names if name.endswith(".py")}
    assert packed == set(MODULES)


def test_the_wheel_holds_every_flagfile_inside_the_package(wheel_names):
    shipped = {f"ape_gan_tf/flags/{p.name}" for p in ROOT.glob("flags/*")}
    packed = {name for name in wheel_names if name.endswith(".flags")}
    assert packed
    assert packed == shipped


def test_the_wheel_holds_every_pretrained_file(wheel_names):
    folder = "ape_gan_tf/pretrained"
    shipped = {
        f"{folder}/{path.name}"
        for path in (ROOT / folder).iterdir()
        if not path.name.startswith(".")
    }
    packed = {name for name in wheel_names if name.startswith(folder + "/")}
    assert packed
    assert packed == shipped


def test_the_wheel_holds_every_template(wheel_names):
    folder = "ape_gan_tf/templates"
    shipped = {f"{folder}/{p.name}" for p in ROOT.glob(f"{folder}/*.html")}
    packed = {name for name in wheel_names if name.startswith(folder + "/")}
    assert packed
    assert packed == shipped


def test_the_wheel_holds_the_licence(wheel_names):
    assert any(name.endswith("/LICENSE") for name in wheel_names)
