"""What each stage does, given a folder to write to; the commands and the quickstart run the same functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_bert.checkpoints import ModelFolder, load_model_folder, open_source, recognise, save_model_folder
from keras_bert.cli.console import Progress
from keras_bert.cli.environment import describe_machine, now, peak_memory_bytes
from keras_bert.cli.stage import fingerprint
from keras_bert.cli.trials import verify_on
from keras_bert.export import save_litert, save_saved_model
from keras_bert.export.saved_model import check_labels
from keras_bert.text import Tokenizer, learn_vocabulary, save_vocabulary
from keras_bert.training import baselines, tables, text_files
from keras_bert.training.classification import Classifier
from keras_bert.training.finetune import evaluate, finetune, load_start
from keras_bert.training.restart import Restart
from keras_bert.training.settings import FinetuneSettings
from keras_bert.training.task import Task

MODEL_FILES = ("model.keras", "vocab.txt", "keras_bert.json")
ARTIFACTS = {"saved_model": "saved_model/1", "litert": "model.tflite", "litert-int8": "model.int8.tflite"}


def learn_vocabulary_stage(
    folder: Path,
    text: Sequence[Path],
    size: int,
    lowercase: bool,
    progress: Progress,
    unused_slots: int | None = 0,
) -> dict:
    """Writes vocab.txt."""
    sentences = (sentence for document in text_files.read_documents(text) for sentence in document)
    pieces = learn_vocabulary(_counted(sentences, text, progress), size, lowercase=lowercase, unused_slots=unused_slots)
    save_vocabulary(pieces, folder / "vocab.txt")
    return {"size": len(pieces), "hash": Tokenizer(pieces, lowercase=lowercase).hash, "lowercase": lowercase}


def _counted(sentences: Iterator[str], files: Sequence[Path], progress: Progress) -> Iterator[str]:
    """Shows how much of the files has been read, in kilobytes; how much there is in a compressed one nobody knows."""
    total = sum(file.stat().st_size for file in files)
    compressed = any(file.suffix.lower() == ".gz" for file in files)
    done = 0
    for count, sentence in enumerate(sentences):
        done += len(sentence.encode("utf-8", "ignore")) + 1
        if not compressed and count % 1000 == 0:
            progress(min(done, total) // 1000, total // 1000, {})
        yield sentence


def finetune_stage(
    folder: Path,
    checkpoint: Path,
    kind: type[Task],
    train,
    dev,
    settings: FinetuneSettings,
    progress: Progress,
    *,
    few_shot: int | None = None,
    new_head: bool = False,
) -> dict:
    """Writes a model folder, TensorBoard logs in logs/ and, until it is done, checkpoints in progress/."""
    created = now()
    task = kind(open_source(checkpoint).tokenizer, settings.max_length)
    task.learn(train, dev, settings)
    if task.labels:
        check_labels(task.labels, len(task.labels))
    if few_shot:
        train = task.few(train, few_shot, settings.seed)
    model, report = finetune(
        task,
        load_start(checkpoint, task, settings, new_head=new_head),
        train,
        dev,
        settings,
        restart_folder=folder / "progress",
        tensorboard=new_logs(folder),
        progress=progress,
    )
    save_model_folder(model, folder)
    told = {"labels": task.labels, "metric": task.metric, "created": created, "environment": describe_machine()}
    return {**report, **told, "peak_memory_bytes": peak_memory_bytes()}


def longest(checkpoint: Path) -> int:
    """The most tokens that a checkpoint's model can take."""
    return open_source(checkpoint).config.max_position_embeddings


def check_rows(train: tables.Table, dev: tables.Table) -> None:
    """Raises where fine-tuning, or what comes after it, could not work with these rows."""
    labels = tables.label_names(train)
    check_labels(labels, len(labels))
    tables.encode_labels(dev, labels)
    _check_segments(dev, 2 if "text_pair" in train else 1)


def evaluate_stage(
    checkpoint: Path, dev: tables.Table, batch_size: int, progress: Progress, train: tables.Table | None = None
) -> dict:
    """Scores, the most confident errors and, where the training rows are given, what simpler methods reach."""
    task = Classifier.of_folder(model := load_classifier(checkpoint))
    scores, errors = evaluate(task, model.model, dev, batch_size, progress)
    report = {**scores, "errors": errors}
    if train is not None:
        joined = [
            [" ".join(row) for row in zip(*(table[name] for name in table.columns if name != "label"), strict=True)]
            for table in (train, dev)
        ]
        report["majority_accuracy"] = baselines.majority_accuracy(train["label"], dev["label"])
        report["tfidf_logistic_regression_accuracy"] = baselines.tfidf_logistic_regression(
            joined[0], train["label"], joined[1], dev["label"]
        )
    return report


def export_stage(folder: Path, checkpoint: Path, formats: Sequence[str], progress: Progress) -> dict:
    """Writes saved_model/1, model.tflite and model.int8.tflite, as asked for."""
    model = load_classifier(checkpoint)
    for done, name in enumerate(formats):
        progress(done, len(formats), {})
        path = folder / ARTIFACTS[name]
        if name == "saved_model":
            save_saved_model(model, path)
        else:
            save_litert(model, path, quantize="none" if name == "litert" else "dynamic")
    return {"artifacts": [ARTIFACTS[name] for name in formats]}


def verify_stage(checkpoint: Path, artifacts: Sequence[Path], dev: tables.Table) -> dict:
    """Compares artifacts with the model on held-out texts."""
    model = load_classifier(checkpoint)
    return {"artifacts": verify_on(Classifier.of_folder(model), model, artifacts, dev, labelled=True)}


def check_verified(artifacts: Sequence[dict]) -> None:
    """Raises where an artifact did not say what the model says; the table of them tells more."""
    wrong = [f"{artifact['name']}, {artifact['signature']}" for artifact in artifacts if not artifact["ok"]]
    if wrong:
        raise ValueError(
            f"Expected every artifact to agree with the Keras model. Received: {len(wrong)} of {len(artifacts)} that "
            f"do not ({'; '.join(wrong)}); the table says how far. A model that has hardly been trained decides by "
            "differences that int8 cannot hold: train for longer, or use the float32 file."
        )


def load_classifier(checkpoint: Path) -> ModelFolder:
    """A model folder that holds a classifier; a pretrained one is an error that says what to do."""
    model = load_model_folder(checkpoint)
    if model.task != "classifier":
        raise ValueError(
            f"Expected a classifier in {checkpoint}. Received: a model for {model.task!r}; "
            "train one with keras-bert finetune --checkpoint."
        )
    if model.problem_type == "multi_label_classification":
        raise ValueError(
            f"Expected a classifier of one label a text in {checkpoint}. Received: one of several labels a text, which "
            "this command does not work with yet; load it with keras_bert.load_checkpoint(..., task='classifier')."
        )
    classes = model.model.output.shape[-1]
    if classes < 2:
        raise ValueError(
            f"Expected a classifier of 2 or more classes in {checkpoint}. Received: one with 1 output, a regressor, "
            "which the commands do not work with yet; load it with keras_bert.load_checkpoint(..., task='classifier')."
        )
    if model.labels is None:  # Google's checkpoints have no place for names
        model.labels = [str(index) for index in range(classes)]
    return model


def settings_of(kind: type, arguments, **overrides):
    """A settings dataclass filled from the flags of the same names."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{**{name: value for name, value in vars(arguments).items() if name in names}, **overrides})


def forget_progress(folder: Path) -> None:
    """Removes the checkpoints of a training that is complete."""
    Restart(folder / "progress", {}).forget()


def checkpoint_files(checkpoint: Path) -> list[Path]:
    """What a result that was made from a checkpoint depends on."""
    if recognise(checkpoint) == "keras":
        return [checkpoint / name for name in MODEL_FILES]
    return sorted(path for path in checkpoint.iterdir() if path.is_file())


def text_fingerprint(files: Sequence[Path]) -> str:
    """A hash of text files; a folder among them is the error that reading it would be, before anything is hashed."""
    for file in files:
        next(text_files.read_lines(file))
    return fingerprint(files)


def new_logs(folder: Path) -> Path:
    """logs/ without the events of an earlier run; one that goes on writes all of its rows again."""
    for events in (folder / "logs").glob("events.out.tfevents.*"):
        events.unlink()
    return folder / "logs"


def _check_segments(table: tables.Table, segments: int) -> None:
    received = 2 if "text_pair" in table else 1
    if received != segments:
        forms = {1: "single texts (text)", 2: "pairs (text and text_pair)"}
        raise ValueError(
            f"{table.name}: expected rows of {forms[segments]}, as in training. Received: {forms[received]}; add, drop "
            "or rename the column text_pair."
        )
