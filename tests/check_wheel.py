"""Builds the wheel, installs it into a fresh virtual environment and uses it there, from another folder.

Run from anywhere: python tests/check_wheel.py

To spare a second download, the dependencies are those of the Python that runs this; keras_bert comes from the wheel
only, which is checked of each of its modules.
"""

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Where the modules of the wheel come from: the folders that setup.cfg maps.
FOLDERS = {"keras_bert": "keras_bert", "training": "keras_bert/training", "export": "keras_bert/export"}

IMPORTS = """
import importlib, pathlib, sys
site, *names = sys.argv[1:]
for name in names:
    file = pathlib.Path(importlib.import_module(name).__file__)
    assert file.is_relative_to(site), f"{name} comes from {file}, not from the wheel"
import keras_bert as kb
classifier = kb.build_classifier(kb.build_encoder(kb.BertConfig.from_preset("tiny")), num_classes=2)
print(kb.__version__, classifier.count_params())
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()
        wheel = build(folder / "dist")
        modules = check_contents(wheel)

        environment = folder / "environment"
        run([sys.executable, "-m", "venv", environment])
        scripts = environment / ("Scripts" if os.name == "nt" else "bin")
        run([scripts / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel])
        show_site = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = run([scripts / "python", "-c", show_site]).strip()
        dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        Path(site, "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n", encoding="utf-8")

        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        said = run([scripts / "python", "-W", "error::UserWarning", "-c", IMPORTS, site, *modules], cwd=elsewhere)
        print(f"imported {len(modules)} modules from {wheel.name}; version and parameters: {said.strip()}")
        usage = run([scripts / "keras-bert", "--help"], cwd=elsewhere)
        if "quickstart" not in usage:
            raise SystemExit(f"Expected the commands in `keras-bert --help`. Received: {usage}")
        if left := sorted(path.name for path in elsewhere.iterdir()):
            raise SystemExit(f"Expected nothing to be written by an import or by --help. Received: {left}")
        print("`keras-bert --help` answers from another folder")


def build(folder: Path) -> Path:
    # What an earlier build left there would be packed again, deleted modules included.
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT])
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> list[str]:
    """The modules in the wheel: exactly those in the checkout, under one top-level name."""
    expected = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in FOLDERS.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        imported = {name: imports_of(archive.read(name)) for name in names}
    if set(names) != expected:
        raise SystemExit(
            f"Expected the modules of the checkout in {wheel.name}. Missing: {sorted(expected - set(names))}, "
            f"unexpected: {sorted(set(names) - expected)}; is a folder missing from `packages` in setup.cfg?"
        )
    for name, roots in imported.items():
        if wrong := roots & {"tests", "training", "export", "benchmarks"}:
            raise SystemExit(f"{name} imports {sorted(wrong)}, which the wheel does not have under that name.")
    return sorted(name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names)


def imports_of(source: bytes) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").split(".")[0])
    return roots


def run(command, cwd=None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")
    return result.stdout


if __name__ == "__main__":
    main()
