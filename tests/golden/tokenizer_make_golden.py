"""Writes tokenizer_golden.json: a small vocabulary, texts, and their ids by Hugging Face's `tokenizers`.

Run from the repository's root: python tests/golden/tokenizer_make_golden.py
"""

import json
import pathlib

import tokenizers

TEXTS = [
    "",
    " ",
    "Hello, World! It's 9 o'clock -- isn't it?",
    "BERT: Pre-training of Deep Bidirectional Transformers (2018), pp. 4171–4186.",
    "unaffable UNAFFABLE Unaffable's",
    "naïve café Ångström İstanbul STRAẞE straße ﬁne ﬃ",
    "e\u0301 e\u0301\u0323 \u00e9 \u1ec7 \u1e69 n\u0303",
    "ΟΔΥΣΣΕΥΣ Οδυσσεύς ΣΑΣ",
    "Привет, мир! Ёлка йод ЙОД",
    "שָׁלוֹם עולם؟ السَّلَامُ عَلَيْكُمْ، العالم",
    "नमस्ते दुनिया। हिन्दी",
    "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง",
    "안녕하세요 세계! 한국어",
    "こんにちは、世界！カタカナ・ｶﾀｶﾅ「引用」",
    "今天天气很好，我们去公园玩吧。价格：￥１２３．５０（约＄18）",
    "機器學習與深度學習，《三國演義》第一回…………",
    "這是English和中文mixed混排text，2024年",
    "豈更車 \U00020000\U0002a700\U0002b740\U0002b820\U0002f800 㐀 〇〡 ⼀",
    "½ ™ № Ⅳ ① ㎏ ㍿ ﷺ ² ª",
    "😀 👩‍👩‍👧 🇩🇪 ❤️ 🤦🏽‍♂️ emoji😀inside",
    "tab\there\nnewline\r\nreturn\x0bvt\x0cff\x85nel\u2028ls\u2029ps\u00a0nbsp\u3000wide",
    "nul\x00in\x00side bell\x07 del\x7f soft\u00adhyphen zero\u200bwidth\u200dj bom\ufeff rep\ufffd private\ue000x",
    "$5 + 5 = 10 < 11 > 9 ^ 2 ` ~ | \\ / _ @ # % & * {a} [b] (c)",
    "≠ ≰ ; ` Å K Ω",
    "“curly” ‘quotes’ «guillemets» — – ‐ … • § ¶ ¡hola! ¿qué?",
    "https://example.org/a_b-c?d=e&f=g#h user@example.org C:\\path",
    "a" * 100 + " " + "a" * 101 + " " + "ab" * 200 + " end",
    "é" * 100 + " " + "é" * 101 + " " + "я" * 100 + "," + "я" * 101,
    "ก" * 33 + " " + "ก" * 34 + " " + "ก" * 100 + " " + "ก" * 101,
    "x\u166dy x\u111c9y x\u061dy x\u2e5dy ##ing #hash ## a##b",
]


def main():
    splitter = tokenizers.pre_tokenizers.BertPreTokenizer()
    pieces = set()
    for lowercase in (True, False):
        normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
        for text in TEXTS:
            for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)):
                pieces |= {word[:1], word[:3], word[:20]}
                pieces |= {"##" + word[start:][:size] for start in range(1, len(word)) for size in (1, 3)}
    # Some characters are left out, to see [UNK].
    pieces = [piece for piece in sorted(pieces) if not {"\\", "ё", "第", "ª"} & set(piece)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    ids = {}
    for lowercase in (True, False):
        tokenizer = tokenizers.BertWordPieceTokenizer(vocabulary, lowercase=lowercase)
        ids["uncased" if lowercase else "cased"] = [
            tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS
        ]
    golden = {"made_with": f"tokenizers {tokenizers.__version__}", "vocabulary": pieces, "texts": TEXTS, **ids}
    path = pathlib.Path(__file__).with_name("tokenizer_golden.json")
    path.write_text(json.dumps(golden, ensure_ascii=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
