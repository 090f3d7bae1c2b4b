"""The READMEs as a reader uses them: the snippets are run, the commands parsed, the tree compared with the folders."""

import ast
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from keras_bert.cli.arguments import COMMANDS, make_parser

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README.zh-CN.md")
DOCUMENTS = (*READMES, "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
# Flags of other programs that the documents mention.
FOREIGN_FLAGS = {"--help", "--rounds", "--no-deps", "--models", "--seconds", "--sst2", "--squad", "--sentences"}


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name, language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", read(name), re.M | re.S)
    return [text for kind, text in found if kind == language]


def commands(name):
    """The `keras-bert` commands of a document's shell blocks, each as a list of arguments."""
    text = "\n".join(blocks(name, "sh")).replace("\\\n", " ")
    parts = [part.strip() for line in text.splitlines() for part in line.partition("#")[0].split("&&")]
    return [shlex.split(part)[1:] for part in parts if part.startswith("keras-bert ")]


def tree(name):
    """{path: purpose} of the tree in a README."""
    (listing,) = (block for block in blocks(name, "") if "layers.py" in block)
    paths, parent = {}, ""
    for line in listing.splitlines():
        indented, path, purpose = re.fullmatch(r"(\s*)(\S+)\s+(\S.*)", line).groups()
        parent = parent if indented else path
        paths[parent + path if indented else path] = purpose
    return paths


def test_snippets_run(tmp_path):
    """All of them, one after the other, in a fresh process; a tiny model takes the place of BERT-base."""
    code = "\n".join(blocks("README.md", "python"))
    assert code.count('"base"') == 1
    (tmp_path / "snippets.py").write_text(code.replace('"base"', '"tiny"'), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [sys.executable, "snippets.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert re.search(r"b'(good|bad)'", result.stdout)
    assert (tmp_path / "artifacts" / "model.int8.tflite").stat().st_size > 0


def test_the_two_readmes_have_the_same_snippets():
    """But for their comments and strings, which are in the reader's language."""

    def shape(code):
        return re.sub(r"Constant\(value='[^']*'\)", "Constant(str)", ast.dump(ast.parse(code)))

    first, second = ([shape(code) for code in blocks(name, "python")] for name in READMES)
    assert first == second


@pytest.mark.parametrize("name", READMES)
def test_set_up_is_the_two_commands(name):
    shell = "\n".join(blocks(name, "sh"))
    assert "pip install . && keras-bert quickstart\n" in shell
    assert 'pip install ".[test]" && pytest\n' in shell
    assert 'pip install ".[test]" && pytest' in read(".ci/run")


@pytest.mark.parametrize("name", READMES)
def test_commands_parse(name):
    parser = make_parser()
    found = commands(name)
    assert {arguments[0] for arguments in found} == set(COMMANDS)
    for arguments in found:
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors):
                parser.parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{name}: keras-bert {shlex.join(arguments)}: {errors.getvalue()}")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_flags_exist(name):
    (subparsers,) = (action for action in make_parser()._actions if isinstance(action.choices, dict))
    known = {flag for parser in subparsers.choices.values() for flag in parser._option_string_actions}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", read(name))) <= known | FOREIGN_FLAGS


@pytest.mark.parametrize("name", READMES)
def test_tree_is_the_folders(name):
    listed = set(tree(name))
    folders = {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    package = {
        f"keras_bert/{path.name}{'/' if path.is_dir() else ''}"
        for path in (ROOT / "keras_bert").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert listed == folders | package


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name):
    """Links, and names in backquotes that end like a file of this project."""
    text = read(name)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
    everything = [path.relative_to(ROOT).as_posix() for folder in ROOT.glob("[!.]*/") for path in folder.rglob("*.py")]
    for target in re.findall(r"`([\w/]+\.py)`", text):
        assert (ROOT / target).exists() or any(path.endswith(f"/{target}") for path in everything), target


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.M))
    used = {word for line in re.findall(r"^make ([\w -]+)", read("CONTRIBUTING.md"), re.M) for word in line.split()}
    assert used
    assert used <= targets
