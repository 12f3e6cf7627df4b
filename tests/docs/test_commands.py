"""What the documentation tells people to type, checked and typed.

Blocks fenced as `sh`, and indented lines, must name commands, flags,
flagfiles, make targets and scripts that exist. Blocks fenced as `sh run` are
run too, those of a document one after another in one folder, in which blocks
fenced as `python NAME.py` are files.
"""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from absl import flags

from ape_gan_tf import command_line

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
INDENTED = re.compile(r"^    (python -m ape_gan_tf\..*)$", re.MULTILINE)
OURS = re.compile(r"python -m ape_gan_tf\.(\w+)")
FLAG = re.compile(r"(?<![\w-])--(\w+)")
FIGURES = re.compile(
    r"^\| ([\w., ]+) \|(?: .*)? ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE
)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


class Block(NamedTuple):
    """A fenced block of a document."""

    document: Path
    language: str
    lines: tuple[str, ...]

    @property
    def words(self):
        """Its commands, split as a shell would."""
        split = [shlex.split(line, comments=True) for line in self.lines]
        return [words for words in split if words]

    @property
    def file(self):
        """What the reader saves it as: fenced as `python NAME.py`."""
        name = self.language.partition(" ")[2]
        return name if name.endswith(".py") else None


def blocks(document):
    text = document.read_text(encoding="utf-8")
    for language, content in FENCE.findall(text):
        # A backslash continues a line.
        lines = content.replace("\\\n", " ").splitlines()
        yield Block(document, language.strip(), tuple(lines))


BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
BLOCKS += [
    Block(document, "sh", tuple(INDENTED.findall(document.read_text())))
    for document in DOCUMENTS
]
COMMANDS = [
    pytest.param(words, id=f"{block.document.stem}:{' '.join(words)}")
    for block in BLOCKS
    if block.language.split()[:1] == ["sh"]
    for words in block.words
]
GUIDE = ROOT / "docs" / "your_own_classifier.md"
# So many at the beginning of a document may be those of another one.
SHARED_COMMANDS = 2
SAVED = {block.file for block in BLOCKS}


def is_ours(words):
    return words[:2] == ["python", "-m"] and words[2].startswith("ape_gan_tf.")


def run_ours(words, main=None):
    """Runs `python -m ape_gan_tf.NAME ...` here, or `main` in its place."""
    name = words[2]
    module = importlib.import_module(name)
    return command_line.run(
        module.define_flags,
        main or module.main,
        module.__doc__,
        argv=[name.rpartition(".")[2], *words[3:]],
    )


def make_targets():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([\w-]+):", text, re.MULTILINE))


def known_flags():
    """All flags of all commands, and of the scripts beside them."""
    known = {"flagfile", "help", "debug"}
    for path in (ROOT / "ape_gan_tf").glob("*.py"):
        if "command_line.run(" in path.read_text(encoding="utf-8"):
            values = flags.FlagValues()
            importlib.import_module(f"ape_gan_tf.{path.stem}").define_flags(
                values
            )
            known |= set(values)
    for path in (ROOT / "benchmarks").glob("*.py"):
        known |= set(FLAG.findall(path.read_text(encoding="utf-8")))
    return known


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 5
    assert any(block.language == "sh run" for block in BLOCKS)


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_can_be_typed(words, capsys):
    if is_ours(words):
        parsed = []
        # N stands for a number.
        words = [re.sub(r"=N$", "=1", word) for word in words]
        code = run_ours(words, main=parsed.append)
        assert code == 0, capsys.readouterr().err
        assert parsed or "--help" in words
    elif words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        assert set(targets) <= make_targets()
    elif words[0].startswith("python") and len(words) > 1:
        if words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file() or words[1] in SAVED


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_what_a_document_names_is_there(document):
    text = document.read_text(encoding="utf-8")
    for name in OURS.findall(text):
        assert (ROOT / "ape_gan_tf" / f"{name}.py").is_file()
    for link in LINK.findall(text):
        assert (document.parent / link).exists(), link
    in_code = " ".join(re.findall(r"`(-[^`\n]+)`", text))
    known = known_flags()
    for name in FLAG.findall(in_code):
        # --noflip is --flip=false.
        assert name in known or name.removeprefix("no") in known, name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_python_in_a_document_is_python(document):
    for block in blocks(document):
        if block.language.split()[:1] == ["python"]:
            compile("\n".join(block.lines), str(document), "exec")


def commands_to_run(document):
    return [
        words
        for block in blocks(document)
        if block.language == "sh run"
        for words in block.words
    ]


def needs_real_data(words):
    return any(
        re.match(r"--(dataset|flagfile)=(flags/)?(mnist|cifar10)", word)
        for word in words
    )


@pytest.fixture(scope="module")
def folders():
    """What the same first commands left, typed in another document."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if commands_to_run(path)],
    ids=lambda path: path.stem,
)
def test_the_commands_of_a_document_run(
    document, tmp_path, tmp_path_factory, folders, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    typed = ()
    for block in blocks(document):
        if block.file:
            Path(block.file).write_text("\n".join(block.lines))
    # A program of the document finds the packages of this tree.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # What is installed beside this Python: saved_model_cli.
    programs = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    for words in commands_to_run(document):
        if needs_real_data(words) and not os.environ.get("APE_GAN_TF_DATA"):
            pytest.skip("real data: APE_GAN_TF_DATA is not set")
        if any("--warmup_batch_sizes" in word for word in words):
            pytest.importorskip(
                "tensorflow_serving",
                reason="tensorflow-serving-api is not installed",
            )
        typed += (tuple(words),)
        if typed in folders:
            shutil.copytree(folders[typed], tmp_path, dirs_exist_ok=True)
        elif is_ours(words):
            code = run_ours(words)
            assert code == 0, capsys.readouterr().err
            if len(typed) <= SHARED_COMMANDS:
                kept = tmp_path_factory.mktemp("typed")
                folders[typed] = shutil.copytree(
                    tmp_path, kept, dirs_exist_ok=True
                )
        else:
            subprocess.run(words, check=True, timeout=300)
    if document == GUIDE:
        check_figures(document.read_text(encoding="utf-8"))


def check_figures(text):
    """Error rates that the guide shows beside those of its run."""
    report = Path("run/report.md").read_text(encoding="utf-8")
    shown, found = (
        {name: (float(a), float(b)) for name, a, b in FIGURES.findall(each)}
        for each in (text, report)
    )
    assert len(shown) == 3
    for name, figures in shown.items():
        # Another processor's training goes another way.
        assert found[name] == pytest.approx(figures, abs=10.0), name
