"""What `tokenizers` makes of texts, the library behind Hugging Face's BertTokenizer, and strings to try it with."""

import functools
import unicodedata

import numpy as np
import tokenizers

ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


def reference(tokenizer):
    """Returns the `tokenizers.Tokenizer` with the rules of one of ours, put together as transformers' BertTokenizer."""
    special = tokenizer.special_tokens
    vocabulary = {piece: i for i, piece in enumerate(tokenizer.vocabulary)}
    other = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token=special["unk_token"]))
    other.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=tokenizer.split_chinese,
        strip_accents=tokenizer.strip_accents,
        lowercase=tokenizer.lowercase,
    )
    other.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    other.decoder = tokenizers.decoders.WordPiece()
    other.add_special_tokens([*dict.fromkeys([*special.values(), *tokenizer.additional_special_tokens])])
    other.encode_special_tokens = tokenizer.split_special_tokens
    return other


def differences(tokenizer, texts, batch=4096):
    """Returns what differs between both, ids or offsets: text, ours, theirs."""
    other = reference(tokenizer)
    found = []
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        expected = other.encode_batch(part, add_special_tokens=False)
        ids, starts, ends = (values.to_list() for values in tokenizer.tokenize_with_offsets(part))
        alone = tokenizer.tokenize(part).to_list()
        assert len(ids) == len(alone) == len(part)
        for text, encoding, one, two, begin, end in zip(part, expected, ids, alone, starts, ends, strict=True):
            offsets = list(zip(begin, end, strict=True))
            if (encoding.ids, encoding.ids, encoding.offsets) != (one, two, offsets):
                found.append((text, one, two, offsets, encoding.ids, encoding.offsets))
    return found


@functools.cache
def kept_marks():
    """Characters that canonical decomposition moves about and that BERT's rules do not drop with the accents."""
    decompose = tokenizers.normalizers.NFD().normalize_str
    strip = tokenizers.normalizers.BertNormalizer(strip_accents=True, lowercase=False).normalize_str
    characters = {mark for code in [*range(0x300, 0xD800), *range(0xE000, 0x20000)] for mark in decompose(chr(code))}
    moved = {c for c in characters if c == "\u0345" or decompose("\u0345" + c) != "\u0345" + c}
    return {c for c in moved if strip("a" + c) != "a"}


def are_marks_moved(text):
    """Whether canonical decomposition changes the order of marks where one is of `kept_marks`."""
    decompose = tokenizers.normalizers.NFD().normalize_str
    clean = tokenizers.normalizers.BertNormalizer(strip_accents=False, lowercase=False).normalize_str
    text = clean(text)
    whole = decompose(text)
    return whole != "".join(map(decompose, text)) and not kept_marks().isdisjoint(whole)


@functools.cache
def by_script():
    """Characters of the two lower planes and some beyond, by script as far as their names tell, and by category."""
    groups = {}
    for code in [*range(1, 0xD800), *range(0xE000, 0x20000), *range(0x20000, 0x33480, 7), *range(0xE0000, 0xE01F0)]:
        character = chr(code)
        category = unicodedata.category(character)
        script = unicodedata.name(character, "?").split()[0]
        groups.setdefault(f"script {script}", []).append(character)
        groups.setdefault(f"category {category}", []).append(character)
    groups = {name: group for name, group in groups.items() if len(group) >= 8}
    groups["private planes"] = [chr(code) for code in range(0xF0000, 0x110000, 991)]
    groups["unassigned planes"] = [chr(code) for code in range(0x40000, 0xE0000, 7919)]
    groups["decomposed"] = [c for c in map(chr, range(0xC0, 0x30000)) if unicodedata.normalize("NFD", c) != c]
    groups["case"] = [c for c in map(chr, range(0x20, 0x20000)) if c.lower() != c or c.upper() != c]
    return groups


WORDS = [
    *[
        "the",
        "un",
        "affable",
        "able",
        "don't",
        "U.S.",
        "naïve",
        "ÉCOLE",
        "straße",
        "İstanbul",
        "ΣΊΣΥΦΟΣ",
        "Москва",
        "йод",
    ],
    *[
        "東京都",
        "中文",
        "汉字",
        "한국어",
        "각",
        "हिन्दी",
        "ไทย",
        "עִבְרִית",
        "العربيَّة",
        "ＡＢＣ",
        "１２３",
        "½",
        "™",
        "ﬁn",
        "😀",
    ],
    *["👨\u200d👩\u200d👧", "🇩🇪", "e\u0301", "a\u0323\u0302", "http://x.y/z?a=1", "#tag", "@you", "3.14", "--", "..."],
    *["[MASK]", "[SEP]", "[CLS]", "[PAD]", "[UNK]", "[mask]", "[MASK", "[[MASK]]", "[unused1]", "##ing", "##", "<s>"],
]


def generated(count, seed):
    """Returns strings that mix scripts, accents, emoji, controls, special pieces, white space and very long words."""
    rng = np.random.default_rng(seed)
    groups = list(by_script().values())
    ascii_characters = [chr(code) for code in range(1, 128)]
    marks = [chr(code) for code in range(0x300, 0x370)]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.integers(0, 8)):
            kind = rng.integers(0, 12)
            if kind < 4:
                group = groups[rng.integers(len(groups))]
                parts += [group[i] for i in rng.integers(0, len(group), rng.integers(1, 8))]
            elif kind < 6:
                parts += [ascii_characters[i] for i in rng.integers(0, 127, rng.integers(1, 12))]
            elif kind < 9:
                parts.append(WORDS[rng.integers(len(WORDS))])
            elif kind < 10:
                parts += [marks[i] for i in rng.integers(0, len(marks), rng.integers(1, 4))]
            elif rng.random() < 0.06:
                group = groups[rng.integers(len(groups))]
                repeated = [group[i] for i in rng.integers(0, len(group), rng.integers(1, 4))]
                parts.append("".join(repeated) * int(rng.choice([20, 33, 50, 99, 100, 101, 150])))
            parts.append(["", "", " ", "  ", "\t", "\n", "\u3000", "\u00ad", "\x00", "\ufffd"][rng.integers(10)])
        texts.append("".join(parts))
    return texts
