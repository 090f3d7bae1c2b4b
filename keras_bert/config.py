"""The architecture of a BERT, named as in `bert_config.json`, and the published sizes."""

from __future__ import annotations

import dataclasses
import json
import os

HIDDEN_ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu")
POSITION_EMBEDDING_TYPES = ("absolute", "sinusoidal")
POOLER_ACTIVATIONS = ("tanh", "relu", None)

# Spellings that other packages use for the same function.
_ACTIVATION_ALIASES = {
    "swish": "silu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
}

# Keys of a bert_config.json that would change the numbers, with the one value that leaves them as they are.
_UNSUPPORTED_UNLESS = {
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "model_type": "bert",
    "pruned_heads": {},
    "quantization_config": None,
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Everything that fixes the shape and the arithmetic of a BERT encoder.

    The defaults are BERT-base, uncased English (Devlin et al. 2019, section 3). Every field is honoured by
    `build_encoder`. Two go beyond `bert_config.json`, for what DistilBERT (Sanh et al. 2019, section 3) leaves out or
    does otherwise: `type_vocab_size` may be 0, an encoder without token-type embeddings, and `pooler_act` is the
    pooler's activation, None for an encoder without pooler.

    Raises:
      ValueError: a field is out of range, or `num_attention_heads` does not divide `hidden_size`.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    position_embedding_type: str = "absolute"
    pooler_act: str | None = "tanh"

    def __post_init__(self):
        object.__setattr__(self, "hidden_act", _ACTIVATION_ALIASES.get(str(self.hidden_act), self.hidden_act))
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        ):
            value, least = getattr(self, name), 0 if name == "type_vocab_size" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}. Received: {name}={value!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                "num_attention_heads must divide hidden_size, because every head gets an equal slice of it. "
                f"Received: hidden_size={self.hidden_size}, num_attention_heads={self.num_attention_heads}"
            )
        if self.hidden_act not in HIDDEN_ACTIVATIONS:
            raise ValueError(f"hidden_act must be one of {HIDDEN_ACTIVATIONS}. Received: {self.hidden_act!r}")
        if self.position_embedding_type not in POSITION_EMBEDDING_TYPES:
            raise ValueError(
                f"position_embedding_type must be one of {POSITION_EMBEDDING_TYPES}. "
                f"Received: {self.position_embedding_type!r}"
            )
        if self.pooler_act not in POOLER_ACTIVATIONS:
            raise ValueError(f"pooler_act must be one of {POOLER_ACTIVATIONS}. Received: {self.pooler_act!r}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is a probability and must be in [0, 1). Received: {name}={getattr(self, name)!r}"
                )
        for name in ("layer_norm_eps", "initializer_range"):
            if not _is_number(getattr(self, name)) or not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0. Received: {name}={getattr(self, name)!r}")

    @classmethod
    def from_preset(cls, name: str, **overrides) -> BertConfig:
        """A published size from `PRESETS`, with any field overridden by keyword."""
        if name not in PRESETS:
            raise ValueError(f"Expected a preset name, one of {sorted(PRESETS)}. Received: {name!r}")
        return cls(**{**PRESETS[name], **overrides})

    @classmethod
    def from_dict(cls, values: dict) -> BertConfig:
        """Reads the contents of a `bert_config.json` or a Hugging Face `config.json`.

        Keys that do not change the encoder's numbers are ignored: `architectures`, `use_cache`, `pad_token_id` (the
        attention mask says what is padding), `classifier_dropout` (an argument of `build_classifier`) ...

        Raises:
          ValueError: a key asks for something this package does not compute; the message names it.
        """
        for key, neutral in _UNSUPPORTED_UNLESS.items():
            if key in values and values[key] not in (None, neutral):
                raise ValueError(
                    f"Expected {key}={neutral!r} in a BERT encoder config. Received: {key}={values[key]!r}, "
                    "which would change the numbers and is not supported."
                )
        embedding_size = values.get("embedding_size", values.get("hidden_size"))
        if embedding_size != values.get("hidden_size"):
            raise ValueError(
                "Expected embedding_size equal to hidden_size (a factorised embedding table is not BERT). "
                f"Received: embedding_size={embedding_size}, hidden_size={values.get('hidden_size')}"
            )
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    @classmethod
    def from_json_file(cls, path: str | os.PathLike) -> BertConfig:
        """Reads a `bert_config.json`; the error of an unreadable file names it."""
        try:
            with open(path, encoding="utf-8") as file:
                values = json.load(file)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"Expected a JSON object with the fields of BertConfig in {path}. Received: {error}"
            ) from error
        if not isinstance(values, dict):
            raise ValueError(f"Expected a JSON object in {path}. Received: a {type(values).__name__}")
        return cls.from_dict(values)

    def to_dict(self) -> dict:
        """The fields as a JSON-serialisable dict; `from_dict` is its inverse."""
        return dataclasses.asdict(self)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# base and large: Devlin et al. 2019, "BERT", section 3. The smaller ones: Turc et al. 2019, "Well-Read Students Learn
# Better: On the Importance of Pre-training Compact Models", table 1, released as google-research/bert's miniatures.
PRESETS = {
    "tiny": {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512},
    "mini": {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    "small": {"num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048},
    "medium": {"num_hidden_layers": 8, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048},
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096},
}
