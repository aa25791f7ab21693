#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Records families.json and texts.json with the reference implementation (pip install tokenizers).

    record_families.py SHARED_DATA FOLDER

The shared data has vocabularies and merges of two byte-level tokenizers and no tokenizer.json of
them: the parts around the model (normalizer, pre_tokenizer, post_processor, decoder, flags, added
tokens) of each family stand here, and the test puts the same file together. Where a family's own
vocabulary is not at hand, its parts stand around another one.

Recorded are 2,100 texts of every script, and for each tokenizer and text one CRC-32 over the ids
(int32, little endian) and the decoded text behind them. With `show NAME INDEX` behind the
arguments the ids of one text are printed instead. unicode.json has the CRC-32 of what the reference
says about every code point.
"""
import json
import random
import struct
import sys
import zlib

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

SPACE = "\u2581"
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
HEAD = r"[^\r\n\p{L}\p{N}]?"
LLAMA3 = WORDS + r"\p{N}{1,3}" + TAIL
QWEN2 = WORDS + r"\p{N}" + TAIL
QWEN35 = QWEN2.replace(r"\p{L}+|", r"[\p{L}\p{M}]+|", 1)
TEKKEN = (HEAD + "[" + UPPER + "]*[" + LOWER + "]+|" + HEAD + "[" + UPPER + "]+[" + LOWER
          + r"]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?"""
            r"[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]

GPT2_PARTS = ["gpt2-cs336/gpt2_vocab.json", "gpt2-cs336/gpt2_merges.txt"]
QWEN_PARTS = ["qwen2/vocab.json", "qwen2/merges.txt"]
NEXT = 151643  # the first id behind Qwen's vocabulary


def level(**changes):
    return dict({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                 "use_regex": True}, **changes)


def split(regex, **changes):
    return dict({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated",
                 "invert": False}, **changes)


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def added(i, text, **flags):
    return dict({"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": False, "special": True}, **flags)


def begin(text, i):
    return {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": text, "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {text: {"id": text, "ids": [i], "tokens": [text]}}}


def family(parts, tokens, normalizer, pre, post, **flags):
    model = dict({"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": False}, **flags)
    return {"parts": parts,
            "frame": {"version": "1.0", "truncation": None, "padding": None,
                      "added_tokens": tokens, "normalizer": normalizer, "pre_tokenizer": pre,
                      "post_processor": post, "decoder": level(add_prefix_space=True),
                      "model": model}}


def patched(folder, **changes):
    return {"file": folder + "/tokenizer.json", "frame": changes}


def families():
    chat = [added(NEXT, "<|endoftext|>"), added(NEXT + 1, "<|im_start|>"),
            added(NEXT + 2, "<|im_end|>"), added(NEXT + 3, "<think>", special=False)]
    llama = [added(NEXT, "<|begin_of_text|>"), added(NEXT + 1, "<|eot_id|>"),
             added(NEXT + 2, "<|start_header_id|>")]
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first",
                 "split": False}
    return {
        "gpt2": family(GPT2_PARTS, [added(50256, "<|endoftext|>")], None, level(), level()),
        "gpt2-prefix": family(GPT2_PARTS, [added(50256, "<|endoftext|>"),
                                           added(50257, "<mask>", lstrip=True),
                                           added(50258, "Zqw", single_word=True, special=False,
                                                 normalized=True)],
                              None, level(add_prefix_space=True), level()),
        "qwen2": family(QWEN_PARTS, chat, {"type": "NFC"},
                        sequence(split(QWEN2), level(use_regex=False)), level()),
        "qwen3.5": family(QWEN_PARTS, chat, {"type": "NFC"},
                          sequence(split(QWEN35), level(use_regex=False)), level()),
        "llama3": family(QWEN_PARTS, llama, None,
                         sequence(split(LLAMA3), level(use_regex=False)),
                         {"type": "Sequence", "processors": [level(),
                                                             begin("<|begin_of_text|>", NEXT)]},
                         ignore_merges=True),
        "llama3-old": family(QWEN_PARTS, llama, None,
                             sequence(split(LLAMA3, behavior="Removed", invert=True),
                                      level(use_regex=False)), None),
        "tekken": family(QWEN_PARTS, [added(NEXT, "<|s|>"), added(NEXT + 1, "[|INST|]",
                                                                  rstrip=True)], None,
                         sequence(split(TEKKEN), level(use_regex=False)), begin("<|s|>", NEXT),
                         ignore_merges=True),
        "falcon": family(GPT2_PARTS, [added(50256, "<|endoftext|>"), added(50257, ">>TITLE<<")],
                         None, sequence({"type": "Punctuation", "behavior": "Contiguous"}, level(),
                                        {"type": "Digits", "individual_digits": False},
                                        split("[0-9][0-9][0-9]")), level()),
        "deepseek": family(QWEN_PARTS, llama, {"type": "Sequence", "normalizers": []},
                           sequence(*[split(x) for x in DEEPSEEK], level(use_regex=False)),
                           level()),
        "nfkc-digits": family(QWEN_PARTS, chat, {"type": "NFKC"},
                              sequence({"type": "Digits", "individual_digits": True},
                                       {"type": "Punctuation", "behavior": "MergedWithNext"},
                                       level()), None),
        "nfd-spaces": family(QWEN_PARTS, chat, {"type": "NFD"},
                             sequence({"type": "WhitespaceSplit"},
                                      level(add_prefix_space=True)), None),
        "phi-3": patched("phi-3-mini"),
        "mistral": patched("minueza-32m-mistral"),
        "mistral-metaspace": patched("minueza-32m-mistral", normalizer=None,
                                     pre_tokenizer=metaspace),
        "gemma-like": patched("minueza-32m-mistral",
                              normalizer={"type": "Replace", "pattern": {"String": " "},
                                          "content": SPACE},
                              pre_tokenizer={"type": "Split", "pattern": {"String": " "},
                                             "behavior": "MergedWithPrevious", "invert": False}),
    }


def build(shared, f):
    folder = shared + "/tokenizers/"
    if "file" in f:
        with open(folder + f["file"], encoding="utf-8") as file:
            return dict(json.load(file), **f["frame"])
    j = json.loads(json.dumps(f["frame"]))
    with open(folder + f["parts"][0], encoding="utf-8") as file:
        j["model"]["vocab"] = json.load(file)
    with open(folder + f["parts"][1], encoding="utf-8") as file:
        j["model"]["merges"] = [x for x in file.read().split("\n")
                                if x and not x.startswith("#version")]
    return j


SCRIPTS = [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x250, 0x2FF), (0x370, 0x3FF),
           (0x400, 0x52F), (0x531, 0x58F), (0x591, 0x5F4), (0x600, 0x6FF), (0x700, 0x74F),
           (0x780, 0x7BF), (0x7C0, 0x7FD), (0x840, 0x85E), (0x8A0, 0x8FF), (0x900, 0x97F),
           (0x980, 0x9FE), (0xA01, 0xA76), (0xA81, 0xAFF), (0xB01, 0xB77), (0xB82, 0xBFA),
           (0xC00, 0xC7F), (0xC80, 0xCF3), (0xD00, 0xD7F), (0xD81, 0xDF4), (0xE01, 0xE5B),
           (0xE81, 0xEDF), (0xF00, 0xFDA), (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF),
           (0x1200, 0x139F), (0x13A0, 0x13FD), (0x1400, 0x167F), (0x1680, 0x169C),
           (0x16A0, 0x16F8), (0x1780, 0x17F9), (0x1800, 0x18AA), (0x1AB0, 0x1ACE),
           (0x1B00, 0x1B7F), (0x1E00, 0x1FFE), (0x2000, 0x206F), (0x2070, 0x20FF),
           (0x2100, 0x218B), (0x2190, 0x23FF), (0x2460, 0x27BF), (0x2900, 0x2BFF),
           (0x2C00, 0x2DFF), (0x2E00, 0x2E5D), (0x2E80, 0x2FDF), (0x3000, 0x30FF),
           (0x3105, 0x31FF), (0x3200, 0x33FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
           (0xA000, 0xA4C6), (0xA4D0, 0xA6F7), (0xA700, 0xA7FF), (0xA800, 0xABF9),
           (0xAC00, 0xD7FB), (0xE000, 0xE0FF), (0xF900, 0xFAD9), (0xFB00, 0xFDFF),
           (0xFE00, 0xFEFF), (0xFF01, 0xFFEE), (0x10000, 0x100FA), (0x10280, 0x104FB),
           (0x10800, 0x10AF6), (0x10C80, 0x10F59), (0x11000, 0x1107F), (0x11080, 0x111FF),
           (0x11380, 0x113E2), (0x11480, 0x1165A), (0x11900, 0x11959), (0x11F00, 0x11F5A),
           (0x12000, 0x1254F), (0x13000, 0x1345F), (0x16800, 0x16FFF), (0x1B000, 0x1B2FB),
           (0x1D100, 0x1D245), (0x1D400, 0x1D7FF), (0x1E030, 0x1E08F), (0x1E900, 0x1E95F),
           (0x1EE00, 0x1EEF1), (0x1F000, 0x1F2FF), (0x1F300, 0x1F6FF), (0x1F780, 0x1FAFF),
           (0x1FB00, 0x1FBF9), (0x20000, 0x2A6DF), (0x2B739, 0x2EE5D), (0x31350, 0x323AF),
           (0xE0001, 0xE007F), (0x10FFF0, 0x10FFFF)]
BLANKS = [" ", "  ", "\n", "\n\n", "\r\n", "\t", "   ", "\u00a0", "\u2003", "\u3000", " \n ",
          "\u0085", "\u2028", "\u180e", "\u200b", "\ufeff", "\u1680", "\u205f", "\v", "\f"]
PIECES = ["the", "word", "Zqw", "Hello", "don't", "I'LL", "we've", "'s", "'S", "\u017f", "'\u017f",
          "can't", "HTTPServer", "fooBar", "x1y22z333", "1234567", "3.14",
          "\u00bd\u00b2", "\u0661\u0662\u0663",
          "...", "!?!", "=>", "//", "/*", "*/", "(a)", "\"q\"", "a@b.c", "#tag", "\\n", "{}[]",
          "e\u0301", "A\u030a", "\u212b", "o\u0308\u0323", "o\u0323\u0308",
          "\u1100\u1161\u11a8",
          "\uac00\u11a8", "\u0958", "\u0344", "\u2126", "\ufb01", "\uff21", "\u3300", "\u0130",
          "\u4f60\u597d", "\u65e5\u672c\u8a9e", "\ud55c\uad6d\uc5b4",
          "\u0928\u092e\u0938\u094d\u0924\u0947",
          "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f",
          "\U0001f44d\U0001f3fd", "\x00", "\x01", "\x1b[0m", "\x7f", "\x9f", "\ufffd", "\ue000",
          SPACE, SPACE + "a", "\u0120", "\u010a", "<0x41>", "int main(void)\n{\n\treturn 0;\n}\n"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "<|begin_of_text|>",
           "<|eot_id|>", "<|start_header_id|>", "<mask>", "<|s|>", "[|INST|]", ">>TITLE<<", "<s>",
           "</s>", "<unk>", "<|assistant|>", "<|end|>", "<|", "|>", "<|im_", ">>TITLE<"]
BROKEN = [b"\xff", b"\x80", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xf5\x80",
          b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe0\x80\xaf", b"\xfe\xfe"]


def script(rng):
    low, high = rng.choice(SCRIPTS)
    return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 8)))


def text(rng, i):
    if i < len(SCRIPTS):
        low, high = SCRIPTS[i]
        return " ".join("".join(chr(rng.randint(low, high)) for _ in range(4)) for _ in range(3))
    parts = []
    for _ in range(rng.randint(1, 9)):
        kind = rng.randrange(12)
        if kind < 3:
            parts.append(script(rng))
        elif kind < 7:
            parts.append(rng.choice(PIECES))
        elif kind < 10:
            parts.append(rng.choice(BLANKS) * rng.choice([1, 1, 1, 2, 5]))
        elif kind == 10:
            parts.append(rng.choice(SPECIAL))
        else:
            parts.append(rng.choice("aAz0 \u0301.-") * rng.randint(1, 12))
    return "".join(parts)


def texts():
    rng = random.Random(7)
    out = [""] + BLANKS + PIECES + SPECIAL
    out += [text(rng, i) for i in range(1950 - len(out))]
    whole = [x.encode() for x in out]
    for _ in range(150):
        parts = [rng.choice(BROKEN) if rng.random() < 0.4 else rng.choice(PIECES).encode()
                 for _ in range(rng.randint(1, 6))]
        whole.append(b"".join(parts))
    return whole


def printable(x):
    """A string where the bytes are UTF-8, else their hex digits in an array."""
    try:
        return x.decode()
    except UnicodeDecodeError:
        return [x.hex()]


def answer(t, x):
    ids = t.encode(x.decode("utf-8", "replace"), add_special_tokens=False).ids
    special = {i for i, a in t.get_added_tokens_decoder().items() if a.special and a.normalized}
    return ids, t.decode([i for i in ids if i not in special])


def crc(ids, decoded):
    return zlib.crc32(struct.pack("<%di" % len(ids), *ids) + decoded.encode())


def chars():
    return [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def property_crc(pre):
    """One bit a code point: is it cut off between two others."""
    bits = bytearray(0x110000 // 8)
    for x in chars():
        if len(pre.pre_tokenize_str("\x01" + x + "\x01")) > 1:
            bits[ord(x) >> 3] |= 1 << (ord(x) & 7)
    return zlib.crc32(bytes(bits))


def form_crc(form):
    crc32 = 0
    for x in chars():
        for y in (x, "a" + x + "\u0323\u0301\u0327", "a\u0301" + x + "\u0323"):
            crc32 = zlib.crc32(form.normalize_str(y).encode(), crc32)
    return crc32


def unicode_facts():
    names = ["L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "N", "Nd", "Nl", "No", "P", "S"]
    out = {"\\p{%s}" % x: property_crc(pre_tokenizers.Split(Regex("\\p{%s}" % x), "isolated"))
           for x in names}
    for x in ["\\s", "[^\\s\\p{L}\\p{N}]", "(?i:s|k)"]:
        out[x] = property_crc(pre_tokenizers.Split(Regex(x), "isolated"))
    out["Digits"] = property_crc(pre_tokenizers.Digits())
    out["Punctuation"] = property_crc(pre_tokenizers.Punctuation())
    out["WhitespaceSplit"] = property_crc(pre_tokenizers.WhitespaceSplit())
    for x in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"]:
        out[x] = form_crc(getattr(normalizers, x)())
    return out


def write(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, separators=(",", ":"), ensure_ascii=True)
        file.write("\n")


def main():
    shared, folder = sys.argv[1:3]
    whole = texts()
    if sys.argv[3:4] == ["show"]:
        t = Tokenizer.from_str(json.dumps(build(shared, families()[sys.argv[4]])))
        x = whole[int(sys.argv[5])]
        print(x, *answer(t, x))
        return
    out = families()
    for name, f in out.items():
        t = Tokenizer.from_str(json.dumps(build(shared, f)))
        f["crc"] = "".join("%08x" % crc(*answer(t, x)) for x in whole)
        print(name, t.get_vocab_size(), file=sys.stderr)
    write(folder + "/families.json", out)
    write(folder + "/texts.json", [printable(x) for x in whole])
    write(folder + "/unicode.json", unicode_facts())


main()
