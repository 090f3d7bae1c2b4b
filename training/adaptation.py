"""Which weights of a model learn, and how fast: freezing, adapters, and rates that differ by layer."""

from __future__ import annotations

import re

import keras

from keras_bert.encoder import layers_of
from keras_bert.training.settings import FinetuneSettings

Rates = list[tuple[str, float, int]]  # see AdamW


def set_trainable(model: keras.Model, settings: FinetuneSettings) -> None:
    """Freezes what does not learn, and adds adapters where there is a rank for them.

    Variables are frozen, not layers: a layer would be saved as one that does not learn.
    """
    embeddings, blocks, _ = layers_of(model)
    frozen = {"none": 0, "embeddings": 1, "encoder": 1 + len(blocks)}.get(settings.freeze)
    if frozen is None:
        frozen = 1 + settings.freeze if settings.freeze else 0
    if settings.freeze not in ("none", "embeddings", "encoder") and settings.freeze > len(blocks):
        raise ValueError(
            f"freeze must be at most the model's number of blocks, {len(blocks)}. Received: freeze={settings.freeze}"
        )
    if settings.lora_rank:
        frozen = 1 + len(blocks)
    for layer in [embeddings, *blocks][:frozen]:
        for variable in layer.trainable_variables:
            variable.trainable = False
    if settings.lora_rank:
        for block in blocks:
            for dense in (block.attention.qkv, block.attention.output_dense):
                dense.enable_lora(settings.lora_rank)
                dense.bias.trainable = False


def merge_adapters(model: keras.Model) -> dict:
    """The values of all weights by their paths, with what adapters learned added to the products that they adapt."""
    values = {weight.path: weight for weight in model.weights if "lora_kernel" not in weight.path}
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Dense) and layer.lora_enabled:
            values[layer._kernel.path] = layer.kernel
    return values


def learning_rates(model: keras.Model, settings: FinetuneSettings, steps_per_epoch: int) -> Rates:
    """What the learning rate of each block is multiplied by, and the step from which the block learns.

    With a decay d (Howard and Ruder 2018, section 3.2) the head has 1, the top block d, the block below d^2, and the
    embeddings below all blocks. With `unfreeze_every` n (section 3.3) the head learns from the start, and every n
    epochs one more block does, from the top.
    """
    blocks = layers_of(model)[1]
    names = [block.name for block in reversed(blocks)] + ["embeddings"]
    wait = settings.unfreeze_every * steps_per_epoch
    if settings.layer_decay == 1.0 and not wait:
        return []
    return [(f"(^|/){name}/", settings.layer_decay**depth, depth * wait) for depth, name in enumerate(names, start=1)]


def check_learning(model: keras.Model, rates: Rates) -> None:
    """Raises ValueError where no weight learns from the first step on: a head may have none of its own."""
    late = [pattern for pattern, _, first_step in rates if first_step]
    if all(any(re.search(pattern, weight.path) for pattern in late) for weight in model.trainable_weights):
        raise ValueError(
            "Expected something that learns from the first step on. Received: a head without weights of its own, all "
            "else frozen at first; choose another freeze, or unfreeze_every=0."
        )
