"""Recipes: the flags of a run as a YAML file, with what came out of it and on what machine."""

from __future__ import annotations

import json
from pathlib import Path

from keras_bert.cli.errors import UsageError

# What a recipe says besides flags: what to expect of the run, not what it does.
NOTES = ("about", "expected", "environment")


def with_recipe(argv: list[str]) -> list[str]:
    """The arguments with those of `--recipe FILE` put before them, so that the command line's own win."""
    path = _named(argv) if argv[:1] == ["finetune"] else None
    if path is None:
        return argv
    contents = _read(path)
    if any(argument.partition("=")[0] == "--seed" for argument in argv):
        contents.pop("seeds", None)  # which would win over the one seed that was asked for
    return [argv[0], *_as_flags(contents, path), *argv[1:]]


def write_recipe(flags: dict, expected: dict, environment: dict, path: Path) -> None:
    """Writes a recipe that `with_recipe` reads. `flags` are by name, without the dashes."""
    import yaml

    from keras_bert.atomic import atomic_file

    contents = {**flags, "expected": expected, "environment": environment}
    text = yaml.safe_dump(json.loads(json.dumps(contents)), sort_keys=False, allow_unicode=True, width=120)
    with atomic_file(path) as scratch:
        scratch.write_text(f"# keras-bert finetune --recipe {path.name} --out DIR\n{text}", encoding="utf-8")


def _named(argv: list[str]) -> Path | None:
    for place, argument in enumerate(argv[1:], start=1):
        if argument.startswith("--recipe="):
            return Path(argument.partition("=")[2])
        if argument == "--recipe" and place + 1 < len(argv):
            return Path(argv[place + 1])
    return None


def _read(path: Path) -> dict:
    import yaml

    try:
        contents = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"Expected a recipe, a YAML file. Received: {path}, which does not exist.") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        said = " ".join(str(error).split())
        raise UsageError(f"Expected a recipe, a YAML file of flags, in {path}. Received: {said}") from error
    if not isinstance(contents, dict) or not all(isinstance(key, str) for key in contents):
        raise UsageError(f"Expected a recipe, flags with their values, in {path}. Received: {contents!r:.100}")
    return {key: value for key, value in contents.items() if key not in NOTES}


def _as_flags(contents: dict, path: Path) -> list[str]:
    from keras_bert.cli.arguments import COMMANDS, FLAGS

    command = COMMANDS["finetune"]
    known = {flag.removeprefix("--") for flag in f"{command.required} {command.optional}".split()} - {"recipe"}
    flags = []
    for key, value in contents.items():
        name = key.replace("_", "-")
        if name not in known:
            raise UsageError(
                f"{path}: expected the flags of keras-bert finetune. Received: {key!r}; correct or drop it."
            )
        if value is None:
            continue
        is_switch = "action" in (command.own.get(f"--{name}") or FLAGS[f"--{name}"])
        if is_switch != isinstance(value, bool):
            expected = "true or false" if is_switch else "a value"
            raise UsageError(f"{path}: expected {expected} for {key!r}. Received: {value!r:.100}")
        if is_switch:
            flags += [f"--{name}" if value else f"--no-{name}"]
        elif isinstance(value, list):
            flags += [f"--{name}", *map(str, value)]
        elif isinstance(value, dict) and name == "class-weights":
            flags += [f"--{name}", json.dumps(value, ensure_ascii=False)]
        elif isinstance(value, dict):
            flags += [f"--{name}", ",".join(f"{label}={part}" for label, part in value.items())]
        else:
            flags += [f"--{name}", str(value)]
    return flags
