"""What setup.cfg promises, against the code; tests/test_imports.py compares its list of packages with the folders."""

import ast
import collections
import configparser
import importlib
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

import keras_bert

ROOT = Path(__file__).parent.parent
FOLDERS = ("export", "keras_bert", "training")
MODULES = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture(scope="module")
def providers():
    """Which distributions a module comes from; importlib.metadata's own answer leaves many out on Python 3.10."""
    found = collections.defaultdict(set)
    for distribution in importlib.metadata.distributions():
        for file in distribution.files or ():
            if file.suffix in (".py", ".so"):
                found[file.parts[0].partition(".")[0]].add(distribution.metadata["Name"])
    return found


def lines_of(value):
    return [line.strip() for line in value.splitlines() if line.strip() and not line.strip().startswith("#")]


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")


def test_only_the_package_is_a_package(setup):
    """An __init__.py in tests/ or examples/ would make it one, and an installation could pick it up."""
    assert sorted(path.parent.name for path in ROOT.glob("*/__init__.py")) == list(FOLDERS)
    top_level = {package.partition(".")[0] for package in lines_of(setup["options"]["packages"])}
    assert top_level == {"keras_bert"}


def test_version(setup):
    module, _, name = setup["metadata"]["version"].removeprefix("attr:").strip().rpartition(".")
    version = getattr(importlib.import_module(module), name)
    assert version == keras_bert.__version__
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)


def test_console_script_resolves(setup):
    (line,) = lines_of(setup["options.entry_points"]["console_scripts"])
    name, module, function = re.fullmatch(r"(\S+) = (\S+):(\S+)", line).groups()
    assert name == "keras-bert"
    assert callable(getattr(importlib.import_module(module), function))


def test_extras(setup):
    extras = {name: set(map(name_of, lines_of(value))) for name, value in setup["options.extras_require"].items()}
    runner = {"pytest", "pytest-xdist"}
    assert extras == {
        "test": runner | {"ai-edge-quantizer"},
        "test-parity": runner | {"torch", "transformers", "sentence-transformers"},
        "mediapipe": {"mediapipe"},
        "quantize": {"ai-edge-quantizer"},
        "serving": {"tensorflow-serving-api"},
        "onnx": {"onnx", "onnxruntime", "tf2onnx"},
        "beam": {"apache-beam"},
        "lint": {"ruff", "pre-commit"},
    }


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_import_is_declared(path, setup, providers):
    declared = set(map(name_of, lines_of(setup["options"]["install_requires"])))
    optional = {name_of(line) for lines in setup["options.extras_require"].values() for line in lines_of(lines)}
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        # torch reads pytorch_model.bin where it is installed, and its absence is an error that says so.
        for root in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"keras_bert", "torch"}:
            known = set(map(name_of, providers[root])) & declared or name_of(root) in optional
            assert known, f"{path} imports {root}"


def test_no_module_is_called_utils():
    assert not [path for path in MODULES if re.search(r"util|helper|common|misc", path.stem)]
