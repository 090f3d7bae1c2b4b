"""Who may import whom (ARCHITECTURE.md), and what `import keras_bert` loads."""

import ast
import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "keras_bert": ROOT / "keras_bert",
    "keras_bert.training": ROOT / "training",
    "keras_bert.export": ROOT / "export",
}


def modules():
    """{module name: its file} of the three packages."""
    found = {}
    for package, folder in FOLDERS.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = file
    return found


MODULES = modules()


def imports(name):
    """The modules that a module names, at its top or inside a function; relative ones in full."""
    file, found = MODULES[name], set()
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, node.module or ""]).strip(".")
            # `from keras_bert import layers` names a module, `from keras_bert.config import BertConfig` does not.
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names}
    return found


def area(name):
    """The part of the picture that a module belongs to."""
    for part in ("training", "export", "cli", "text", "checkpoints"):
        if name == f"keras_bert.{part}" or name.startswith(f"keras_bert.{part}."):
            return part
    return name


# What each part of the picture may see of the others. `keras_bert` itself is the list of public names.
SMALL = {"keras_bert.version", "keras_bert.atomic", "keras_bert.quiet"}
CORE = {
    "keras_bert.config",
    "keras_bert.basic_layers",
    "keras_bert.layers",
    "keras_bert.head_layers",
    "keras_bert.model",
    "keras_bert.encoder",
    "keras_bert.heads",
}
ALLOWED = {
    "keras_bert": CORE | SMALL | {"text", "checkpoints"},
    "keras_bert.version": set(),
    "keras_bert.atomic": set(),
    "keras_bert.quiet": set(),
    "keras_bert.config": set(),
    "keras_bert.basic_layers": set(),
    "keras_bert.layers": {"keras_bert.basic_layers"},
    "keras_bert.head_layers": {"keras_bert.basic_layers", "keras_bert.layers"},
    "keras_bert.model": {"keras_bert.config", "keras_bert.layers"},
    "keras_bert.encoder": CORE - {"keras_bert.head_layers", "keras_bert.encoder", "keras_bert.heads"},
    "keras_bert.heads": CORE - {"keras_bert.heads"},
    "text": SMALL,
    "checkpoints": CORE | SMALL | {"text"},
    "training": CORE | SMALL | {"text", "checkpoints", "keras_bert"},
    "export": CORE | SMALL | {"text", "checkpoints", "keras_bert"},
    "cli": CORE | SMALL | {"text", "checkpoints", "keras_bert", "training", "export"},
}


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name):
    home = area(name)
    ours = {area(module) for module in imports(name) if module.split(".")[0] == "keras_bert"} - {home}
    assert home in ALLOWED, f"{name} is new: say in this test and in ARCHITECTURE.md what it may import"
    assert ours <= ALLOWED[home], f"{name} must not import {sorted(ours - ALLOWED[home])}"


@pytest.mark.parametrize("name", [name for name in MODULES if area(name) in ("training", "export")])
def test_training_and_export_are_imported_by_their_full_names(name):
    """A relative import, or `import training`, makes a second copy of a module run with `python -m`."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert not {module for module in imports(name) if module.split(".")[0] in ("training", "export")}


@pytest.mark.parametrize("name", ["config", "basic_layers", "layers", "head_layers", "model", "encoder", "heads"])
def test_the_core_runs_on_every_backend(name):
    assert not {m for m in imports(f"keras_bert.{name}") if m.split(".")[0] in ("tensorflow", "tensorflow_text")}


def test_the_walk_sees_what_it_should():
    """Or the tests above could not fail."""
    assert "keras_bert.layers" in imports("keras_bert.encoder")
    assert "keras_bert.training.masking" in imports("keras_bert.training.pretrain")
    assert "keras_bert.atomic" in imports("keras_bert.checkpoints.folder")
    assert {area(name) for name in MODULES} == set(ALLOWED)


def test_setup_cfg_lists_the_folders_that_there_are():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = setup["options"]["packages"].split()
    packages = {name for name, file in MODULES.items() if file.name == "__init__.py"}
    assert len(listed) == len(set(listed))
    assert set(listed) == packages
    places = dict(line.split(" = ") for line in setup["options"]["package_dir"].strip().splitlines())
    assert {name: ROOT / place for name, place in places.items()} == FOLDERS
    inner = {path.parent for folder in FOLDERS.values() for path in folder.rglob("*.py")}
    assert inner == {MODULES[name].parent for name in packages}, "a folder of modules without an __init__.py"


def run(code, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout.split()


def test_importing_the_package_loads_little(tmp_path):
    code = """
import sys, keras
before = set(sys.modules)
import keras_bert
print(*{name.split(".")[0] for name in set(sys.modules) - before})
print(*(name for name in sys.modules if name.startswith("keras_bert.")))
assert all(hasattr(keras_bert, name) for name in keras_bert.__all__)
"""
    loaded = set(run(code, tmp_path))
    heavy = {"tensorflow_text", "tokenizers", "sklearn", "keras_hub", "keras_nlp", "rich", "ai_edge_litert", "scipy"}
    assert not loaded & heavy
    assert not {name for name in loaded if area(name) in ("training", "export", "cli")}
    assert "keras_bert.encoder" in loaded


def test_the_command_line_answers_without_tensorflow(tmp_path):
    code = """
import sys
sys.argv = ["keras-bert"]
import keras_bert.cli
print(*sys.modules)
"""
    assert not {"tensorflow", "keras", "numpy", "tensorflow_text"} & set(run(code, tmp_path))
