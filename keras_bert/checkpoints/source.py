"""What a checkpoint of any format holds, read before a model is built, and the model built from it."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable

import keras
import numpy as np

from keras_bert import heads
from keras_bert.basic_layers import TruncatedNormal, weights_come_later
from keras_bert.checkpoints import weights
from keras_bert.checkpoints.tensor_files import Tensors
from keras_bert.config import BertConfig
from keras_bert.encoder import build_encoder, config_of, encoder_of
from keras_bert.text import Tokenizer

BUILDERS: dict[str, Callable] = {
    "pretraining": heads.build_pretrainer,
    "masked_lm": heads.build_masked_lm,
    "next_sentence": heads.build_next_sentence,
    "classifier": heads.build_classifier,
    "token_classifier": heads.build_token_classifier,
    "question_answerer": heads.build_question_answerer,
    "multiple_choice": heads.build_multiple_choice,
    "embedder": heads.build_embedder,
}
TASKS = ("encoder", *BUILDERS)
NEED_POOLER = ("pretraining", "next_sentence", "classifier", "multiple_choice")
NEED_CLASSES = ("classifier", "token_classifier")
OWN_LAYERS = ("logits", "projection")  # of one task's head; the other layers of heads are shared between tasks

_NOTHING = re.compile(r"(?!)")
_logger = logging.getLogger("keras_bert")


@dataclasses.dataclass
class Source:
    """A checkpoint on disk, before its weights are read.

    Attributes:
      name: what error messages call it, usually its path.
      format: its name in load.FORMATS.
      config: the encoder's, with a `pooler_act` where the checkpoint has a pooler.
      tokenizer: its tokenizer.
      tensors: shapes, and values on demand.
      rules: for a task, the list of rules that its model is made by.
      heads: the tasks that the checkpoint has a head for, its own first, each with the arguments of its builder.
      labels: names of the classes, where it has any.
      max_length: tokens that a text was cut to in its training, or may have.
      segments: 2 where its texts come in pairs; None where it does not say.
      problem_type: what a classifier's logits mean, by transformers' names, where it says so.
      options: what else its training settled, where it says so.
      ignored: tensors that nothing reads, such as buffers.
      encoder_tensors: tensors that belong to an encoder; what is outside is some head.
      check: raises where something outside of the tensors' names and shapes stands against loading a task; it gets
        the task as it was asked for, which may be None.
      model: the model itself, where the format stores it built.
      default_pooler_act: the activation of a pooler that the format has but this checkpoint lacks.
    """

    name: str
    format: str
    config: BertConfig
    tokenizer: Tokenizer
    tensors: Tensors
    rules: Callable[[str], list[weights.Rule]]
    heads: dict[str, dict] = dataclasses.field(default_factory=dict)
    labels: list[str] | None = None
    max_length: int | None = None
    segments: int | None = None
    problem_type: str | None = None
    options: dict = dataclasses.field(default_factory=dict)
    ignored: re.Pattern = _NOTHING
    encoder_tensors: re.Pattern = _NOTHING
    check: Callable[[str | None], None] = lambda task: None
    model: keras.Model | None = None
    default_pooler_act: str = "tanh"

    @property
    def task(self) -> str:
        """The task of the checkpoint's own head."""
        return next(iter(self.heads), "encoder")


@dataclasses.dataclass
class Plan:
    """What loading a source for a task would do: `fresh` are the weights that start anew, `left_out` is not read."""

    task: str
    config: BertConfig
    arguments: dict
    rules: dict[str, weights.Rule]
    left_out: list[str]


def make_plan(source: Source, task: str | None, num_classes: int | None = None) -> Plan:
    """Decides how to load `source` for `task`, and checks everything that can be checked without building a model."""
    if task is not None and task not in TASKS:
        raise ValueError(f"task must be one of {TASKS}. Received: {task!r}")
    asked, strict, task = task, task != "encoder", task or "encoder"
    config = source.config
    # Without a word about pooling, sentence-transformers takes the mean, and leaves the vectors' lengths as they are.
    new_head = {"pooling": "mean", "normalize": False} if task == "embedder" else {}
    arguments = dict(source.heads.get(task, new_head))
    if task in NEED_CLASSES:
        if num_classes is not None:
            arguments["num_classes"] = num_classes
        elif "num_classes" not in arguments:
            arguments["num_classes"] = len(source.labels or ()) or 2
    elif num_classes is not None:
        raise ValueError(
            f"num_classes goes with the tasks {NEED_CLASSES}. Received: num_classes={num_classes}, {task=}"
        )
    if task in NEED_POOLER and config.pooler_act is None:
        config = dataclasses.replace(config, pooler_act=source.default_pooler_act)
    if source.tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"Expected a vocabulary of vocab_size={config.vocab_size} pieces in {source.name}, one for each row of the "
            f"word embeddings. Received: {source.tokenizer.vocab_size} pieces; put the model's own vocabulary there. "
            "(Where a table was made longer on purpose, add a line [unused...] for each further row.)"
        )
    rules = source.rules(task)
    weights.check_sizes(config, rules, source.tensors.shapes, source.name)
    source.check(asked)
    expanded = weights.rules_for(rules, config.num_hidden_layers)
    every = [rule for one in {task, *source.heads} for rule in source.rules(one)]
    unknown = weights.unexpected(every, config.num_hidden_layers, source.tensors, source.ignored)
    inside = [name for name in unknown if source.encoder_tensors.fullmatch(name)]
    if inside or (strict and unknown):
        raise ValueError(
            f"Expected tensors that a {source.format} checkpoint of its config has in {source.name}. Received tensors "
            f"that nothing reads: {', '.join(inside or unknown)}. "
            + ("Does the config belong to these weights?" if inside else "task='encoder' leaves other heads out.")
        )
    return Plan(task, config, arguments, expanded, unknown)


def build_model(source: Source, plan: Plan, dtype=None) -> tuple[keras.Model, list[str]]:
    """Builds and fills the model of a plan. Returns it with the paths of the weights that are new, and random."""
    if source.model is not None and dtype is None:
        if plan.task == source.task and plan.arguments == source.heads.get(plan.task, {}):
            return source.model, []
        if plan.task == "encoder" and config_of(source.model) == source.config:
            return encoder_of(source.model), []
    model, fresh = prepare_model(source, plan, dtype)
    weights.load(model, plan.rules, source.tensors, source.name, fresh)
    for variable in model.weights:
        if variable.path in fresh:
            _start(variable, plan.config)
    return model, fresh


def read_other_weights(source: Source, plan: Plan, model: keras.Model) -> dict:
    """The pooler where the checkpoint has one and the model does not, by the weights' paths."""
    present, broken = {weight.path for weight in model.weights}, []
    if source.config.pooler_act != "tanh":
        return {}
    poolers = {path: plan.rules[path] for path in ("pooler/kernel", "pooler/bias") if path not in present}
    values = {path: np.ascontiguousarray(weights.read(rule, source.tensors, broken)) for path, rule in poolers.items()}
    weights.refuse_broken(broken, source.name)
    return values


def prepare_model(source: Source, plan: Plan, dtype=None) -> tuple[keras.Model, list[str]]:
    """Builds the model of a plan, as yet without its weights, and checks that the checkpoint can fill it."""
    with weights_come_later():
        model = encoder = build_encoder(plan.config, dtype=dtype)
        if plan.task != "encoder":
            model = BUILDERS[plan.task](encoder, **plan.arguments)
    skip = set()
    if source.heads.get(plan.task) != plan.arguments:
        # Formats call the last layer alike in every task, and another number of classes may have been asked for.
        skip = {weight.path for layer in model.layers if layer.name in OWN_LAYERS for weight in layer.weights}
    fresh = weights.match(model, plan.rules, source.tensors, source.name, skip)
    _check_whole(source, plan, fresh, skip)
    return model, fresh


def _check_whole(source: Source, plan: Plan, fresh: list[str], skip: set[str]) -> None:
    """A head that the checkpoint says it has must be there."""
    if plan.task in source.heads and set(fresh) - skip:
        lost = [name for path in fresh if path not in skip for name in plan.rules[path].theirs]
        raise ValueError(
            f"Expected all weights of the {plan.task} in {source.name}. Received tensors missing: {', '.join(lost)}"
        )


def _start(variable, config: BertConfig) -> None:
    """Gives a weight the value that a new layer of a head starts with."""
    if variable.path.endswith("/kernel"):
        variable.assign(TruncatedNormal(config.initializer_range)(variable.shape, variable.dtype))
    elif variable.path.endswith("/gamma"):
        variable.assign(keras.ops.ones(variable.shape, variable.dtype))


def report(source: Source, plan: Plan, fresh: list[str]) -> list[str]:
    """What loading says, a line each: what is new, and what is not read."""
    lines = []
    if plan.task == "embedder" and "embedder" not in source.heads:
        lines.append(
            f"{source.name}: it does not say how texts become vectors; this embedder takes the mean of the tokens, not "
            "normalized, as sentence-transformers does"
        )
    if fresh:
        layers = sorted({path.partition("/")[0] for path in fresh})
        lines.append(
            f"{source.name}: the weights of {', '.join(layers)} are new and random ({', '.join(fresh)}); train the "
            f"{plan.task} before it is used"
        )
    if plan.left_out:
        lines.append(f"{source.name}: not read: {', '.join(plan.left_out)}")
    return lines


def say(lines: list[str]) -> None:
    for line in lines:
        _logger.warning(line)
