"""The command that pretrains, on a corpus or on text that it makes one of."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from keras_bert.checkpoints import ModelFolder, find_checkpoint, load_source, open_source, save_model_folder
from keras_bert.cli import stages
from keras_bert.cli.console import Console, Progress
from keras_bert.cli.errors import UsageError
from keras_bert.cli.stage import fingerprint, run_stage
from keras_bert.config import PRESETS, BertConfig
from keras_bert.encoder import config_of
from keras_bert.model import is_multi_worker
from keras_bert.text import Tokenizer, load_vocabulary
from keras_bert.training import text_files
from keras_bert.training.corpus import Corpus, CorpusSettings, open_corpus
from keras_bert.training.corpus_build import build_corpus
from keras_bert.training.distribution import is_chief, leave_together, make_strategy
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
    settings = stages.settings_of(PretrainSettings, arguments)
    strategy = make_strategy(settings.strategy)  # several workers meet before TensorFlow runs its first operation
    if is_multi_worker(strategy) and arguments.text:
        raise UsageError("Several workers need --corpus, which all can read. Received: --text; run corpus build first.")
    out = Path(arguments.out)
    if arguments.text:
        text, vocab = text_files.find_files(arguments.text), Path(arguments.vocab)
        load_vocabulary(vocab)
        corpus_settings = CorpusSettings(max_length=arguments.max_length, seed=arguments.seed)
        made_of = text_identity(text, vocab, not arguments.cased, corpus_settings)
    else:
        open_corpus(arguments.corpus)
        made_of = {"corpus": fingerprint([Path(arguments.corpus, "manifest.json")])}

    def work(folder: Path, progress: Progress) -> dict:
        if arguments.text:
            corpus = text_corpus(folder / "corpus", text, vocab, not arguments.cased, corpus_settings, progress)
        else:
            corpus = open_corpus(arguments.corpus)
            corpus.verify()
        start = _start(arguments.preset or "mini", arguments.checkpoint, corpus)
        if not is_chief(strategy):  # which alone writes
            train(corpus, start, settings, restart_folder=folder / "progress", progress=progress)
            return {}
        keep = KeptCheckpoints(folder / "checkpoints", arguments.keep, arguments.checkpoint_format)
        return pretrain_stage(folder, corpus, start, settings, progress, keep)

    if not is_chief(strategy):
        with console.progress("pretrain") as progress:
            work(out, progress)
        leave_together(strategy)
        return 0
    started_from = _start_identity(arguments.preset or "mini", arguments.checkpoint)
    record = run_stage(
        out, "pretrain", {**made_of, **started_from, **vars(settings)}, work, console, files=stages.MODEL_FILES
    )
    leave_together(strategy)
    stages.forget_progress(out)
    print(json.dumps(record["report"]["evaluation"], indent=2))
    return 0


def text_identity(text: Sequence[Path], vocab: Path, lowercase: bool, settings: CorpusSettings) -> dict:
    """What a corpus of text files depends on."""
    made_of = {"text": stages.text_fingerprint(text), "vocab": fingerprint([vocab]), "lowercase": lowercase}
    return {**made_of, "corpus": dataclasses.asdict(settings)}


def text_corpus(
    folder: Path, text: Sequence[Path], vocab: Path, lowercase: bool, settings: CorpusSettings, progress: Progress
) -> Corpus:
    """Makes a corpus of text files in this process: for what is too little to be worth the start of others."""
    tokenizer = Tokenizer(load_vocabulary(vocab), lowercase=lowercase)
    made = not folder.exists()
    try:
        return build_corpus(text, tokenizer, folder, settings, workers=0, progress=progress, overwrite=True)
    except ValueError:
        if made:
            shutil.rmtree(folder, ignore_errors=True)  # text that gives no corpus leaves nothing behind
        raise


def pretrain_stage(
    folder: Path,
    corpus: Corpus,
    start: BertConfig | ModelFolder,
    settings: PretrainSettings,
    progress: Progress,
    keep: KeptCheckpoints | None = None,
) -> dict:
    """Writes a model folder, TensorBoard logs in logs/ and, until it is complete, checkpoints in progress/."""
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


def _start(preset: str, checkpoint: str | None, corpus: Corpus) -> BertConfig | ModelFolder:
    """What a run begins with: a checkpoint's weights, a preset's config or one in a file."""
    if checkpoint:
        source = open_source(find_checkpoint(checkpoint))
        return load_source(source, source.task if source.task in ("pretraining", "masked_lm") else "encoder")
    if preset in PRESETS:
        positions = max(LEAST_POSITIONS, corpus.settings.max_length)
        return BertConfig.from_preset(preset, vocab_size=corpus.tokenizer.vocab_size, max_position_embeddings=positions)
    return BertConfig.from_json_file(preset)


def _start_identity(preset: str, checkpoint: str | None) -> dict:
    if checkpoint:
        return {"checkpoint": fingerprint(stages.checkpoint_files(find_checkpoint(checkpoint)))}
    if preset not in PRESETS and not Path(preset).is_file():
        raise UsageError(
            f"Expected --preset to be one of {', '.join(PRESETS)}, or a bert_config.json. Received: {preset}, which is "
            "no file."
        )
    return {"preset": preset if preset in PRESETS else BertConfig.from_json_file(preset).to_dict()}
