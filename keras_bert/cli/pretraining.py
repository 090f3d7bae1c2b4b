"""The command that pretrains, on a corpus or on text that it makes one of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from keras_bert.checkpoints import ModelFolder, find_checkpoint, load_source, open_source, save_model_folder
from keras_bert.cli import stages
from keras_bert.cli.console import Console, Progress
from keras_bert.cli.errors import UsageError
from keras_bert.cli.stage import fingerprint, run_stage
from keras_bert.config import PRESETS, BertConfig
from keras_bert.encoder import config_of
from keras_bert.text import Tokenizer, load_vocabulary
from keras_bert.training import text_files
from keras_bert.training.corpus import CorpusSettings, build_corpus, open_corpus
from keras_bert.training.kept_checkpoints import KeptCheckpoints
from keras_bert.training.pretrain import PretrainSettings
from keras_bert.training.pretrain import pretrain as train

LEAST_POSITIONS = 512  # as in the published checkpoints


def pretrain(arguments, console: Console) -> int:
    """Writes a model folder, checkpoints of the run, TensorBoard logs, and with --text the corpus."""
    if bool(arguments.corpus) == bool(arguments.text):
        raise UsageError("Expected --corpus, or --text with --vocab. Received: both or neither.")
    if bool(arguments.text) != bool(arguments.vocab):
        raise UsageError("--vocab belongs to --text; a corpus has its own. Received: one of --text and --vocab alone.")
    if arguments.preset and arguments.checkpoint:
        raise UsageError("Expected --preset for a new model, or --checkpoint. Received: both.")
    out = Path(arguments.out)
    folder = Path(arguments.corpus) if arguments.corpus else out / "corpus"
    if arguments.text:
        text_corpus_stage(
            folder,
            text_files.find_files(arguments.text),
            Path(arguments.vocab),
            not arguments.cased,
            CorpusSettings(max_length=arguments.max_length, seed=arguments.seed),
            console,
        )
    settings = stages.settings_of(PretrainSettings, arguments)
    started_from = {"checkpoint": None, "preset": arguments.preset or "mini"}
    if arguments.checkpoint:
        files = stages.checkpoint_files(find_checkpoint(arguments.checkpoint))
        started_from = {"checkpoint": fingerprint(files), "preset": None}
    elif Path(started_from["preset"]).is_file():
        started_from["preset"] = BertConfig.from_json_file(started_from["preset"]).to_dict()
    record = run_stage(
        out,
        "pretrain",
        {"corpus": fingerprint([folder / "manifest.json"]), **started_from, **vars(settings)},
        lambda out, progress: pretrain_stage(
            out,
            folder,
            start_of(arguments.preset, arguments.checkpoint, folder),
            settings,
            progress,
            KeptCheckpoints(out / "checkpoints", arguments.keep, arguments.checkpoint_format),
        ),
        console,
        files=stages.MODEL_FILES,
    )
    stages.forget_progress(out)
    print(json.dumps(record["report"]["evaluation"], indent=2))
    return 0


def text_corpus_stage(
    folder: Path, text: list[Path], vocab: Path, lowercase: bool, settings: CorpusSettings, console: Console
) -> dict:
    """Makes a corpus of text files, in this process: for what is too little to be worth the start of others."""
    load_vocabulary(vocab)
    return run_stage(
        folder,
        "corpus",
        {"text": stages.text_fingerprint(text), "vocab": fingerprint([vocab]), "lowercase": lowercase}
        | dataclasses.asdict(settings),
        lambda folder, progress: _build(folder, text, vocab, lowercase, settings, progress, console.say),
        console,
        files=["manifest.json"],
    )


def _build(folder, text, vocab, lowercase, settings, progress: Progress, say: Callable[[str], None]) -> dict:
    tokenizer = Tokenizer(load_vocabulary(vocab), lowercase=lowercase)
    corpus = build_corpus(text, tokenizer, folder, settings, workers=0, progress=progress)
    stages.warn_of_unknown(corpus.manifest["unknown_part"], say)
    return {name: corpus.manifest[name] for name in ("documents", "examples", "tokens", "unknown_part")}


def start_of(preset: str | None, checkpoint: str | None, corpus: Path) -> BertConfig | ModelFolder:
    """What a run begins with: a checkpoint's weights, a preset's config or one in a file."""
    if checkpoint:
        source = open_source(find_checkpoint(checkpoint))
        return load_source(source, source.task if source.task in ("pretraining", "masked_lm") else "encoder")
    settings, tokenizer = open_corpus(corpus).settings, open_corpus(corpus).tokenizer
    preset = preset or "mini"
    if preset in PRESETS:
        positions = max(LEAST_POSITIONS, settings.max_length)
        return BertConfig.from_preset(preset, vocab_size=tokenizer.vocab_size, max_position_embeddings=positions)
    if not Path(preset).is_file():
        raise UsageError(
            f"Expected --preset to be one of {', '.join(PRESETS)}, or a bert_config.json. Received: {preset}, which is "
            "no file."
        )
    return BertConfig.from_json_file(preset)


def pretrain_stage(
    folder: Path,
    corpus: Path,
    start: BertConfig | ModelFolder,
    settings: PretrainSettings,
    progress: Progress,
    keep: KeptCheckpoints | None = None,
) -> dict:
    """Writes a model folder, TensorBoard logs in logs/ and, until it is complete, checkpoints in progress/."""
    corpus = open_corpus(corpus)
    corpus.verify()
    model, report = train(
        corpus,
        start,
        settings,
        restart_folder=folder / "progress",
        tensorboard=stages.new_logs(folder),
        progress=progress,
        keep=keep,
    )
    save_model_folder(model, folder)
    told = {"parameters": model.model.count_params(), "config": config_of(model.model).to_dict()}
    return {**report, **told, "unknown_part": corpus.manifest["unknown_part"]}
