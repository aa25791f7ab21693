#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains small models with sentencepiece and records what the references make of them
(pip install tokenizers sentencepiece).

    record_unigram.py SHARED_DATA FOLDER

writes FOLDER/unigram.model and bpe.model, and FOLDER/unigram.json: the vocabulary of the first,
the parts that families of tokenizers put around one, and for each the CRC-32 of ids and decoded
text of every text in texts.json (record_families.py), as the `tokenizers` library gives them; for
the models themselves, as sentencepiece gives them (dashes where a text holds the name of a special
token, which sentencepiece does not look for). With `show NAME INDEX` behind the arguments, the ids
of one text are printed.

The rules of the normalizer are a part of NFKC, small enough to stand beside the tests, with some
that take a grapheme of two characters, drop a character or make a longer text.
"""
import base64
import io
import json
import os
import struct
import sys
import tempfile
import unicodedata
import zlib

import sentencepiece
from tokenizers import Tokenizer, normalizers

SPACE = "\u2581"
SPECIAL = ["<unk>", "<s>", "</s>"]
UNK, BOS, EOS = 0, 1, 2
RANGES = [(0xA0, 0x180), (0x1E00, 0x1E20), (0x2000, 0x2040), (0x2100, 0x2150), (0x2460, 0x2480),
          (0x3000, 0x3001), (0x3300, 0x3310), (0x212A, 0x212C), (0xFB00, 0xFB10), (0xFF01, 0xFFA0)]


MODELS = {
    "unigram": {"vocab_size": 1400, "model_type": "unigram",
                "user_defined_symbols": ["<pad>", "[|USER|]"]},
    "bpe": {"vocab_size": 800, "model_type": "bpe"},
}


def rules():
    out = {}
    for low, high in RANGES:
        for c in range(low, high):
            to = unicodedata.normalize("NFKC", chr(c))
            if to != chr(c):
                out[chr(c)] = to
    for a in "aeiou":
        out[a + "\u0301"] = unicodedata.normalize("NFC", a + "\u0301")
    out.update({"\t": " ", "\n": " ", "\r": " ", "\r\n": " ", "\u200b": " ", "\ufeff": "",
                "\x01": "", "\x7f": "", "\u0130": "i\u0307", "\uff76\uff9e": "\u30ac"})
    return out


def write_rules(path):
    with open(path, "w", encoding="utf-8") as file:
        for a, b in sorted(rules().items()):
            file.write("\t".join(" ".join("%X" % ord(c) for c in x) for x in (a, b)) + "\n")


def train(shared, texts, **options):
    with open(shared + "/datasets/text/tinyshakespeare.txt", encoding="utf-8") as file:
        lines = file.read().split("\n")[:12000]
    lines += [x for x in texts[::12] if x.strip() and "\x00" not in x]
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rules.tsv")
        write_rules(path)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, byte_fallback=True,
            character_coverage=0.98, normalization_rule_tsv=path, num_threads=1, minloglevel=2,
            **options)
    return model.getvalue()


def fields(data):
    """(number, value) of each field of a protobuf message."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(tag & 7) or varint()
        yield tag >> 3, data[at:at + size]
        at += size


def parse(model):
    """The pieces with their scores, and the table of the normalizer."""
    vocab, charsmap = [], b""
    for number, value in fields(model):
        if number == 1:
            piece = dict(fields(value))
            vocab.append([piece[1].decode(), struct.unpack("<f", piece[2])[0]])
        elif number == 3:
            charsmap = dict(fields(value)).get(2, b"")
    return vocab, base64.b64encode(charsmap).decode()


def added(i, text, **flags):
    return dict({"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": False, "special": True}, **flags)


def metaspace(scheme, split):
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": split}


def replace(a, b, kind="String"):
    return {"type": "Replace", "pattern": {kind: a}, "content": b}


def family(normalizer, pre, decoder, tokens=(), **model):
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [added(i, x) for i, x in enumerate(SPECIAL)] + list(tokens),
            "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": None,
            "decoder": decoder,
            "model": dict({"type": "Unigram", "unk_id": UNK, "byte_fallback": False}, **model)}


def sequence(kind, *parts):
    return {"type": "Sequence", kind: list(parts)}


def families(size):
    """"charsmap" stands for the table, which is in the file once."""
    table = {"type": "Precompiled", "precompiled_charsmap": "charsmap"}
    decode = sequence("decoders", replace(SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"},
                      {"type": "Strip", "content": " ", "start": 1, "stop": 0})
    mask = added(size, "<mask>", lstrip=True)
    extra = [added(size + i, "<extra_id_%d>" % i, rstrip=bool(i)) for i in range(2)]
    return {
        "xlm-r": family(sequence("normalizers", table, {"type": "Strip", "strip_left": False,
                                                        "strip_right": True},
                                 replace(" {2,}", SPACE, "Regex")),
                        metaspace("always", True), metaspace("always", True), [mask]),
        "t5": family(table, sequence("pretokenizers", {"type": "WhitespaceSplit"},
                                     metaspace("always", True)),
                     metaspace("always", True), extra),
        "llama": family(sequence("normalizers", {"type": "Prepend", "prepend": SPACE},
                                 replace(" ", SPACE)), None, decode, byte_fallback=True),
        "llm-jp": family({"type": "NFKC"}, metaspace("first", False), decode, byte_fallback=True),
        "nmt": family(sequence("normalizers", {"type": "Nmt"}, {"type": "NFKC"},
                               {"type": "Strip", "strip_left": True, "strip_right": True},
                               replace("\\s+", " ", "Regex"),
                               replace("q*", "", "Regex"),
                               replace("\\p{Lu}(?=\\p{Lu})", "-", "Regex")),
                      metaspace("never", True), metaspace("never", True),
                      [added(size, "Zqw", single_word=True, special=False, normalized=True)],
                      byte_fallback=True),
        "digits": family(None, sequence("pretokenizers", metaspace("first", True),
                                        {"type": "Digits", "individual_digits": True}),
                         decode, byte_fallback=True),
    }


def build(frame, vocab, charsmap):
    j = json.loads(json.dumps(frame).replace('"charsmap"', json.dumps(charsmap)))
    j["model"]["vocab"] = vocab
    return Tokenizer.from_str(json.dumps(j))


def answer(t, x):
    ids = t.encode(x.decode("utf-8", "replace"), add_special_tokens=False).ids
    return ids, t.decode(ids)


def crc(ids, decoded):
    return "%08x" % zlib.crc32(struct.pack("<%di" % len(ids), *ids) + decoded.encode())


def piece_answer(sp, x):
    text = x.decode("utf-8", "replace")
    if any(s in text for s in SPECIAL):
        return None
    ids = sp.encode(text)
    return ids, sp.decode(ids)


def facts(charsmap):
    """What the table and Nmt make of every code point, alone and with a mark behind it."""
    chars = [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
    out = {}
    for name, n in [("Precompiled", normalizers.Precompiled(base64.b64decode(charsmap))),
                    ("Nmt", normalizers.Nmt())]:
        value = 0
        for x in chars:
            for y in (x, "a" + x + "\u0301", x + "\u0301" + x):
                value = zlib.crc32(n.normalize_str(y).encode(), value)
        out[name] = value
    return out


def main():
    shared, folder = sys.argv[1:3]
    with open(folder + "/texts.json", encoding="utf-8") as file:
        whole = [x.encode() if isinstance(x, str) else bytes.fromhex(x[0])
                 for x in json.load(file)]
    show = sys.argv[3:4] == ["show"]
    models = {}
    for name, options in MODELS.items():
        path = "%s/%s.model" % (folder, name)
        if not show:
            model = train(shared, [x.decode("utf-8", "replace") for x in whole], **options)
            with open(path, "wb") as file:
                file.write(model)
        with open(path, "rb") as file:
            models[name] = file.read()
    pieces = {k: sentencepiece.SentencePieceProcessor(model_proto=m) for k, m in models.items()}
    vocab, charsmap = parse(models["unigram"])
    out = {k: {"frame": f} for k, f in families(len(vocab)).items()}
    if show:
        name, x = sys.argv[4], whole[int(sys.argv[5])]
        print(x, *(piece_answer(pieces[name], x) if name in pieces else
                   answer(build(out[name]["frame"], vocab, charsmap), x)))
        return
    for name, f in out.items():
        t = build(f["frame"], vocab, charsmap)
        f["crc"] = "".join(crc(*answer(t, x)) for x in whole)
    own = {}
    for name, sp in pieces.items():
        answers = [piece_answer(sp, x) for x in whole]
        own[name] = "".join(crc(*a) if a else "--------" for a in answers)
    record = {"vocab": vocab, "charsmap": charsmap, "facts": facts(charsmap), "families": out,
              "models": own}
    with open(folder + "/unigram.json", "w", encoding="utf-8") as file:
        json.dump(record, file, separators=(",", ":"))
        file.write("\n")


main()
