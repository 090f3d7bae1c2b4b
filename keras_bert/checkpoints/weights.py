"""From the tensors of any format to the weights of a model, and back: all of them, or an error that lists them.

A format is a list of rules, one for each weight of the package's own: which tensors of the format it is made of. So
query, key and value, which are one product here, are three tensors elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import keras
import numpy as np

from keras_bert.checkpoints.tensor_files import Tensors
from keras_bert.config import BertConfig

# The layers that a task adds; what a checkpoint does not hold of them starts anew.
HEAD_LAYERS = ("pooler", "logits", "masked_lm", "next_sentence", "projection")


class Rule(NamedTuple):
    """One weight: `ours` is its path, `theirs` the tensors that it is made of, side by side along its last axis.

    `{i}` stands for the number of the block. `transposed`: the other format keeps kernels as (outputs, inputs).
    """

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False


def rules_for(rules: Iterable[Rule], num_hidden_layers: int) -> dict[str, Rule]:
    """The rules of a model with so many blocks, by the path of the weight."""
    expanded = {}
    for rule in rules:
        for index in range(num_hidden_layers) if "{i}" in rule.ours else (0,):
            ours, *theirs = (name.replace("{i}", str(index)) for name in (rule.ours, *rule.theirs))
            expanded[ours] = Rule(ours, tuple(theirs), rule.transposed)
    return expanded


def check_sizes(config: BertConfig, rules: Iterable[Rule], shapes: Mapping[str, tuple], source: str) -> None:
    """Compares a config with a few tensors before a model is built: a lying config must not take all the memory."""
    layers = config.num_hidden_layers
    if layers > len(shapes):
        raise ValueError(
            f"Expected tensors for num_hidden_layers={layers} blocks in {source}. Received: {len(shapes)} tensors."
        )
    width = config.hidden_size
    expected = {
        "embeddings/word_embeddings": ("vocab_size, hidden_size", (config.vocab_size, width)),
        "embeddings/position_embeddings": (
            "max_position_embeddings, hidden_size",
            (config.max_position_embeddings, width),
        ),
        "embeddings/token_type_embeddings": ("type_vocab_size, hidden_size", (config.type_vocab_size, width)),
        "block_{i}/feed_forward/intermediate/kernel": (
            "hidden_size, intermediate_size",
            (width, config.intermediate_size),
        ),
    }
    for rule in rules:
        names, shape = expected.get(rule.ours, (None, None))
        theirs = rule.theirs[0].replace("{i}", "0")
        if names and theirs in shapes:
            found = shapes[theirs][::-1] if rule.transposed else shapes[theirs]
            if tuple(found) != shape:
                raise ValueError(
                    f"Expected {theirs} of shape {shape}, which the config says ({names}). Received: shape "
                    f"{tuple(found)} in {source}."
                )


def match(
    model: keras.Model, rules: Mapping[str, Rule], tensors: Tensors, source: str, skip: Iterable[str] = ()
) -> list[str]:
    """Checks that `load` can fill the model. Returns the paths of the weights that the checkpoint does not hold.

    Only weights of `HEAD_LAYERS` may be among them, and only whole layers. Those in `skip` are not looked for.

    Raises:
      ValueError: tensors are missing or have another shape; all of them are listed.
    """
    missing, fresh, wrong = [], [], []
    for variable in model.weights:
        if variable.path in skip:
            fresh.append(variable.path)
            continue
        rule = rules.get(variable.path)
        layer = variable.path.partition("/")[0]
        absent = [name for name in rule.theirs if name not in tensors.shapes] if rule else [variable.path]
        if absent:
            whole = not any(name in tensors.shapes for name in _tensors_of(layer, rules))
            if layer in HEAD_LAYERS and whole:
                fresh.append(variable.path)
            else:
                missing += absent
            continue
        part = (*variable.shape[:-1], variable.shape[-1] // len(rule.theirs))
        expected = part[::-1] if rule.transposed else part
        for name in rule.theirs:
            if tensors.shapes[name] != expected:
                wrong.append(f"{name} {tensors.shapes[name]} instead of {expected}")
    problems = [f"missing: {', '.join(missing)}"] if missing else []
    problems += [f"of another shape: {', '.join(wrong)}"] if wrong else []
    if problems:
        raise ValueError(
            f"Expected all weights of the config's model in {source}. Received tensors {'; '.join(problems)}"
        )
    return fresh


def _tensors_of(layer: str, rules: Mapping[str, Rule]) -> list[str]:
    return [name for path, rule in rules.items() if path.startswith(f"{layer}/") for name in rule.theirs]


def load(
    model: keras.Model, rules: Mapping[str, Rule], tensors: Tensors, source: str, skip: Iterable[str] = ()
) -> None:
    """Fills the model's weights, but those in `skip`; `match` has been there before.

    Raises:
      ValueError: a tensor holds NaN or infinity.
    """
    broken = []
    # The largest first: its copies are gone before all of the weights have been touched.
    for variable in sorted(model.weights, key=lambda weight: -int(np.prod(weight.shape))):
        if variable.path not in skip:
            variable.assign(read(rules[variable.path], tensors, broken))
    refuse_broken(broken, source)


def read(rule: Rule, tensors: Tensors, broken: list[str]) -> np.ndarray:
    """The values of one weight, float32; names of tensors with NaN or infinity are added to `broken`."""
    parts = [tensors.read(name) for name in rule.theirs]
    broken += [name for name, part in zip(rule.theirs, parts, strict=True) if not is_finite(part)]
    parts = [np.asarray(part.T if rule.transposed else part, "float32") for part in parts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def refuse_broken(broken: list[str], source: str) -> None:
    """Raises where tensors hold NaN or infinity, and names them."""
    if broken:
        raise ValueError(
            f"Expected finite numbers in {source}. Received NaN or infinity in: {', '.join(sorted(broken))}; the "
            "training that wrote it diverged, or the file is damaged."
        )


def is_finite(array: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        # One pass without a temporary; a sum that overflows is looked at again, number by number.
        return bool(np.isfinite(array.sum(dtype="float32"))) or bool(np.isfinite(array.astype("float32")).all())


def to_arrays(values: Mapping, rules: Mapping[str, Rule]) -> dict[str, np.ndarray]:
    """Weights by their paths as the tensors of another format.

    Raises:
      ValueError: the format has no place for some of the weights; all of them are listed.
    """
    homeless = [path for path in values if path not in rules]
    if homeless:
        raise ValueError(f"Expected weights that the format has names for. Received: {', '.join(homeless)}")
    arrays = {}
    for path, value in values.items():
        rule = rules[path]
        parts = np.split(keras.ops.convert_to_numpy(value), len(rule.theirs), axis=-1)
        for name, part in zip(rule.theirs, parts, strict=True):
            arrays[name] = np.ascontiguousarray(part.T if rule.transposed else part)
    return arrays


def unexpected(rules: Iterable[Rule], num_hidden_layers: int, tensors: Tensors, ignored: re.Pattern) -> list[str]:
    """The tensors that no rule knows and that are not among those to ignore, such as buffers."""
    known = set()
    for rule in rules:
        indices = range(num_hidden_layers) if "{i}" in rule.ours else (0,)
        known |= {name.replace("{i}", str(index)) for index in indices for name in rule.theirs}
    return sorted(name for name in tensors.shapes if name not in known and not ignored.fullmatch(name))
