"""What decides the outcome of a fine-tuning run, given the checkpoint and the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class FinetuneSettings:
    """Settings of a fine-tuning run; the defaults are those of Devlin et al. 2019, appendix A.3, where it has any.

    Attributes:
      epochs: passes over the training examples.
      batch_size: examples a step, over all replicas.
      max_length: tokens that a text is cut to; of questions and of words to tag, tokens a window.
      stride: tokens that a window shares with the one before (question_answerer, token_classifier).
      learning_rate: the highest, after warm-up; it falls linearly to 0.
      warmup: the part of the steps in which the rate rises.
      weight_decay: decoupled decay; biases and LayerNorm are spared.
      seed: of everything random.
      deterministic: the same bits in every run; slower.
      strategy, precision: see `distribution`.
      xla: whether the step is compiled by XLA.
      bucketing: whether batches hold examples of like length.
      accumulation_steps: batches whose gradients are averaged for one update.
      label_smoothing: the part of a label's weight that all classes share (Szegedy et al. 2016, section 7).
      focal_gamma: how much less well-classified examples weigh (Lin et al. 2017, equation 4); 0 is cross-entropy.
      class_weights: "none"; "balanced", examples / (classes * examples of the class), as in scikit-learn; or by label.
      layer_decay: the learning rate of each block over that of the block above it (Clark et al. 2020, appendix A).
      freeze: what does not learn: "none", "embeddings", "encoder" or the number of blocks that stay as they are,
        embeddings included.
      unfreeze_every: epochs after which the next block from the top begins to learn (Howard and Ruder 2018, section
        3.3); 0: all learn from the start.
      lora_rank: rank of the adapters beside the attention's products (Hu et al. 2022); everything else but the head
        stays as it is. 0: no adapters.
      early_stopping: epochs without a better figure after which training ends; 0: never.
      restore_best: whether the model of the best epoch is kept, and not that of the last.
      pooling: what becomes of the tokens' vectors (embedder): see `Pooling`, or "last_4_concat". None: as in the
        checkpoint's embedder, or else "mean".
      temperature: what cosines are divided by in the loss over in-batch negatives (embedder).
      mask_rate: part of the tokens that is hidden (masked_lm).
      bad_answers: what becomes of an answer that does not stand at its offset (question_answerer): "skip", "refuse" or
        "find".
    """

    epochs: int = 3
    batch_size: int = 32
    max_length: int = 128
    stride: int = 32
    learning_rate: float = 5e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0
    deterministic: bool = False
    strategy: str = "default"
    precision: str = "float32"
    xla: bool = False
    bucketing: bool = True
    accumulation_steps: int = 1
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weights: str | Mapping[str, float] = "none"
    layer_decay: float = 1.0
    freeze: str | int = "none"
    unfreeze_every: int = 0
    lora_rank: int = 0
    early_stopping: int = 0
    restore_best: bool = True
    pooling: str | None = None
    temperature: float = 0.05
    mask_rate: float = 0.15
    bad_answers: str = "skip"

    def __post_init__(self):
        for name in ("epochs", "batch_size", "accumulation_steps"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("stride", "unfreeze_every", "lora_rank", "early_stopping", "focal_gamma", "weight_decay"):
            self._check(name, getattr(self, name) >= 0, "at least 0")
        for name in ("label_smoothing", "warmup"):
            self._check(name, 0 <= getattr(self, name) < 1, "at least 0 and less than 1")
        for name in ("layer_decay", "temperature", "learning_rate"):
            self._check(name, getattr(self, name) > 0, "above 0")
        self._check("layer_decay", self.layer_decay <= 1, "at most 1")
        self._check("mask_rate", 0 < self.mask_rate < 1, "above 0 and below 1")
        if isinstance(self.class_weights, str):
            self._check("class_weights", self.class_weights in ("none", "balanced"), "'none', 'balanced' or by label")
        if isinstance(self.freeze, str):
            self._check("freeze", self.freeze in ("none", "embeddings", "encoder"), "none, embeddings, encoder or N")
        else:
            self._check("freeze", self.freeze >= 0, "none, embeddings, encoder or a number of blocks")
        self._check("bad_answers", self.bad_answers in ("skip", "refuse", "find"), "skip, refuse or find")
        self._check(
            "unfreeze_every",
            not self.unfreeze_every or not self.lora_rank,
            "0 where there are adapters (lora_rank), since the blocks themselves do not learn then",
        )

    def _check(self, name: str, right: bool, expected: str) -> None:
        if not right:
            raise ValueError(f"{name} must be {expected}. Received: {name}={getattr(self, name)!r}")
