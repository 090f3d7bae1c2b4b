"""Corpora that tests make of a few documents."""

from keras_bert.training.corpus import CorpusSettings
from keras_bert.training.corpus_build import build_corpus


def make_corpus(documents, tokenizer, folder, **settings):
    """A corpus of rows of 16 tokens, a tenth of it held out, unless `settings` say otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "text.txt"
    text.write_text("\n\n".join("\n".join(document) for document in documents) + "\n", encoding="utf-8")
    settings = CorpusSettings(**{"max_length": 16, "held_out": 0.1, **settings})
    return build_corpus(text, tokenizer, folder / "corpus", settings, workers=0)
