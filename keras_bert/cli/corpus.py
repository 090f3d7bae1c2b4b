"""The command that builds the corpus of pretraining, and checks one."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from keras_bert.cli import stages
from keras_bert.cli.errors import UsageError
from keras_bert.text import Tokenizer
from keras_bert.training.corpus import CorpusSettings, open_corpus
from keras_bert.training.corpus_build import build_corpus
from keras_bert.training.corpus_index import index_corpus


def corpus(arguments, console) -> int:
    """Builds, indexes or verifies; prints what the corpus holds."""
    if arguments.action == "verify":
        given = [flag for flag in ("input", "vocab") if getattr(arguments, flag)]
        if given:
            raise UsageError(f"corpus verify takes --out alone. Received: --{given[0]}")
        found = open_corpus(arguments.out)
        found.verify()
        console.say(f"corpus: {len(found.manifest['shards'])} shards in {arguments.out} are as they were written")
    else:
        missing = [f"--{flag}" for flag in ("input", "vocab") if not getattr(arguments, flag)]
        if missing:
            raise UsageError(
                f"corpus {arguments.action} needs --input, --vocab and --out. Received: none for {', '.join(missing)}"
            )
        if arguments.action == "build":
            found = _build(arguments, console)
        else:
            tokenizer = Tokenizer.from_vocab_file(arguments.vocab, lowercase=not arguments.cased)
            found = index_corpus(arguments.input, tokenizer, arguments.out)
    told = {key: value for key, value in found.manifest.items() if key not in _LONG}
    told["shards"] = {split: len(found.shards(split)) for split in ("train", "dev")}
    print(json.dumps(told, indent=2, ensure_ascii=False))
    return 0


_LONG = ("options", "tokenizer", "identity", "shards")


def _build(arguments, console):
    if arguments.segmenter or arguments.sentence_splitter:
        sys.path.append(os.getcwd())  # a function of a module that lies here
    tokenizer = Tokenizer.from_vocab_file(arguments.vocab, lowercase=not arguments.cased)
    settings = stages.settings_of(CorpusSettings, arguments)
    console.say("corpus ...")
    with console.progress("corpus") as progress:
        return build_corpus(
            arguments.input,
            tokenizer,
            Path(arguments.out),
            settings,
            workers=arguments.workers,
            progress=progress,
            sentence_splitter=arguments.sentence_splitter,
            segmenter=arguments.segmenter,
            overwrite=arguments.overwrite,
            beam_options=None if arguments.beam_options is None else shlex.split(arguments.beam_options),
        )
