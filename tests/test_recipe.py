"""Recipes as flags, and flags as recipes; what a run writes is in test_cli_runs.py."""

import pytest
import yaml

from keras_bert.cli.arguments import make_parser
from keras_bert.cli.errors import UsageError
from keras_bert.cli.recipe import with_recipe, write_recipe

FLAGS = {
    "task": "multi_label",
    "checkpoint": "base",
    "train": "训练.jsonl",
    "dev": "d.jsonl",
    "columns": {"text": "sentence", "labels": "topics"},
    "learning_rate": 2e-05,
    "seeds": [1, 2, 3],
    "class_weights": {"a b": 2.0, "c=d": 0.5, "e, f": 1.0},
    "freeze": 2,
    "bucketing": False,
    "xla": True,
    "new_head": False,
    "few_shot": None,
}


def parse(*argv):
    return vars(make_parser().parse_args(with_recipe(["finetune", *map(str, argv)])))


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "recipe.yaml"
    write_recipe(FLAGS, {"metric": "f1_macro", "value": 0.5}, {"python": "3.12"}, path)
    found = parse("--recipe", path, "--out", "model")
    expected = {**FLAGS, "restore_best": True, "out": "model", "epochs": 3}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("flag", [["--recipe", "{}"], ["--recipe={}"]])
def test_the_command_line_wins(recipe, flag):
    path = recipe("checkpoint: base\ntrain: t.tsv\ndev: d.tsv\nepochs: 7\nseeds: [1, 2]\nout: mine\nxla: true\n")
    found = parse(*(part.format(path) for part in flag), "--epochs", 2, "--seeds", 5, "--no-xla")
    assert (found["epochs"], found["seeds"], found["out"], found["xla"]) == (2, [5], "mine", False)


def test_one_seed_wins_over_a_recipes_seeds(recipe):
    found = parse("--recipe", recipe("checkpoint: b\ntrain: t\ndev: d\nout: o\nseeds: [3, 4]\n"), "--seed", 9)
    assert (found["seeds"], found["seed"]) == (None, 9)


def test_recipes_of_the_repository_are_flags():
    from cli_runs import ROOT

    paths = sorted((ROOT / "examples" / "recipes").glob("*.yaml"))
    assert paths
    for path in paths:
        found = parse("--recipe", path, "--checkpoint", "base", "--out", "model")
        assert found["task"] == yaml.safe_load(path.read_text(encoding="utf-8"))["task"]


def test_other_commands_have_no_recipe(recipe):
    argv = ["predict", "--checkpoint", "model", "--recipe", str(recipe("epochs: 1\n"))]
    assert with_recipe(argv) == argv


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: [1\n", "Expected a recipe, a YAML file of flags, in .*recipe.yaml. Received: .*line 2"),
        ("- epochs\n", r"Expected a recipe, flags with their values.*Received: \['epochs'\]"),
        ("", "Received: None"),
        ("3: 4\n", "Received: {3: 4}"),
        ("epoch: 3\n", "recipe.yaml: expected the flags of keras-bert finetune. Received: 'epoch'"),
        ("recipe: other.yaml\n", "Received: 'recipe'"),
        ("text: a.txt\n", "Received: 'text'"),
        ("xla: 1\n", "recipe.yaml: expected true or false for 'xla'. Received: 1"),
        ("lora_rank: false\n", "expected a value for 'lora_rank'. Received: False"),
    ],
)
def test_what_is_no_recipe(recipe, text, message):
    with pytest.raises(UsageError, match=message):
        parse("--recipe", recipe(text))


def test_a_recipe_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="missing.yaml, which does not exist"):
        parse("--recipe", tmp_path / "missing.yaml")
    with pytest.raises(UsageError, match="Is a directory"):
        parse("--recipe", tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(bytes(range(128, 256)))
    with pytest.raises(UsageError, match="binary.yaml. Received: .*can't decode"):
        parse("--recipe", binary)
