#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Records golden.json with the reference implementation (pip install tokenizers).

    record.py SHARED_DATA TRAINED > golden.json

SHARED_DATA is ../shared/data of the checkout; TRAINED is made by
    tailrace tokenizer --data LICENSE --vocab 600 --out TRAINED

Recorded: ids and decoded texts of three real tokenizers and of the trained one, over texts chosen
to be awkward; and of a toy tokenizer in many variants (normalizers, pre-tokenizers, decoders,
flags, added tokens), so that every branch is compared where no real file is at hand. Special tokens
are left out when decoding, also those with "normalized", which the reference (0.23) forgets to
leave out.
"""

import copy
import json
import random
import sys

from tokenizers import Tokenizer

SPACE = "\u2581"
PLAIN = [
    "",
    " ",
    "  ",
    "a",
    " a",
    "a ",
    "  leading and trailing  ",
    "Hello, world!",
    "\n",
    "\n\n\t x \r\n",
    "The quick brown fox jumps over the lazy dog. 0123456789 3.14159",
    "na\u00efve caf\u00e9 \u00c5ngstr\u00f6m e\u0301 \u1e9e stra\u00dfe",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3002 "
    "\u4f60\u597d\uff0c\u4e16\u754c \ud55c\uad6d\uc5b4",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f600 \U0001f469\u200d\U0001f469\u200d\U0001f467 "
    "\U0001f1e9\U0001f1ea \u2764\ufe0f \U0001f44d\U0001f3fd",
    "\u0001\u0002\u001b[0m \u007f \u0000 nul",
    "\u00a0\u3000\u2028 spaces \u200b\ufeff",
    "\u2581\u2581x\u2581 y",
    "<0x0A> <0xE2><0x96>",
    "\U0010ffff \ue000 \ufffd",
    "int main(void)\n{\n        return 0;   /* done */\n}\n",
    "don't you're we'll I'd",
    "a" * 300,
    " " * 300,
    "=" * 100 + "-" * 100,
    "ab" * 150,
    "\u0301" * 50,
    "aA1 " * 60,
    "Once upon a time, there was a little girl named Lily. She had a red ball.",
]
ADDED = [
    "{0}",
    "{0}text",
    "text{0}",
    " {0} ",
    "a {0}b",
    "{0}{0}",
    "{0} {1}",
    "x{1}   y",
    "x   {1}\n\ny",
    "{0} hello {1}world",
    "{0}\u00e9{1}",
    "<s",
    "<|",
    "{0}{1}{2}  {2}",
]
TOY_TEXTS = [
    "",
    " ",
    "abc",
    " abc  abd",
    "the \u00e9cole \u20ac \U0001f600",
    "a  b   c    ",
    "hehehe<x>he <x>  he",
    "a<y>  b  <y>c",
    "bad he cab",
    "he<z>a <z> <z>b he",
    "\u2581a \u2581",
    "\u00e9\u00e9a\u00e9\u20ac\u20aca\ue000\ue000",
    "<s>a</s> b",
    "\n\na\n \nhe\n\n",
    "eaeaeaea" * 8,
    "  he",
    "abcabcabcabcab",
    "<unk><unk>a <unk>",
    "he<x>",
    "a         b    \n\n  \n\n   c",
]


def added_token(i, text, **flags):
    a = dict(
        id=i,
        content=text,
        single_word=False,
        lstrip=False,
        rstrip=False,
        normalized=False,
        special=False,
    )
    a.update(flags)
    return a


def toy():
    pieces = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    pieces += list(SPACE + "abcdeh\n.xyz<>")
    merges = []
    for left, right in [
        "ab",
        "he",
        SPACE + "a",
        (SPACE + "a", "b"),
        ("ab", "c"),
        ("a", "bc"),
        "bc",
        "ea",
        ("ea", "ea"),
        (SPACE, "he"),
        (SPACE, SPACE),
        ("e", SPACE),
        "ca",
        ("he", "he"),
        ("abc", "abc"),
        ("eaea", "eaea"),
        (SPACE + SPACE, SPACE + SPACE),
    ]:
        merges.append(left + " " + right)
        if left + right not in pieces:
            pieces.append(left + right)
    special = [added_token(i, p, special=True) for i, p in enumerate(["<unk>", "<s>", "</s>"])]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {p: i for i, p in enumerate(pieces)},
            "merges": merges,
        },
    }


def patches(base):
    """Changes to the toy: top-level keys replace, "model" is merged into the model."""
    decoders = base["decoder"]["decoders"]
    n = len(base["model"]["vocab"])
    special = base["added_tokens"]
    out = [{}]
    for scheme in ["first", "always", "never"]:
        for split in [True, False]:
            out.append(
                {
                    "normalizer": None,
                    "pre_tokenizer": {
                        "type": "Metaspace",
                        "replacement": SPACE,
                        "prepend_scheme": scheme,
                        "split": split,
                    },
                }
            )
        out.append(
            {
                "decoder": {
                    "type": "Metaspace",
                    "replacement": SPACE,
                    "prepend_scheme": scheme,
                    "split": True,
                }
            }
        )
    for count in range(4):
        out.append({"decoder": {"type": "Sequence", "decoders": decoders[:count]}})
    out.append({"decoder": None})
    out.append(
        {
            "decoder": {
                "type": "Sequence",
                "decoders": decoders[:3]
                + [{"type": "Strip", "content": "a", "start": 2, "stop": 0}],
            }
        }
    )
    out.append({"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}})
    out.append(
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Replace", "pattern": {"String": "ab"}, "content": "b a"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
                    {"type": "Prepend", "prepend": SPACE + "x"},
                ],
            }
        }
    )
    for fuse in [True, False]:
        for fallback in [True, False]:
            out.append({"model": {"fuse_unk": fuse, "byte_fallback": fallback}})
    out.append({"model": {"unk_token": None, "byte_fallback": False}})
    out.append({"model": {"ignore_merges": True}})
    out.append({"model": {"merges": [m.split(" ") for m in base["model"]["merges"]]}})
    # Byte pieces that are missing, and byte pieces that merge: nothing may fall apart then.
    vocab = {p: i for p, i in base["model"]["vocab"].items() if p != "<0xA9>"}
    out.append({"model": {"vocab": vocab}})
    vocab = dict(base["model"]["vocab"], **{"<0xE2><0x82>": n, "a<0xEE>": n + 1})
    out.append(
        {
            "model": {
                "vocab": vocab,
                "merges": base["model"]["merges"] + ["<0xE2> <0x82>", "a <0xEE>"],
            }
        }
    )
    # Spaces that a token before them has taken; a text that is an added token but was not cut out.
    for flags in [{"rstrip": True}, {"lstrip": True, "rstrip": True}]:
        spaces = [added_token(n, "  ", **flags), added_token(n + 1, "\n\n", **flags)]
        out.append({"added_tokens": special + spaces, "normalizer": None})
    word = [
        added_token(n, "<x>", single_word=True),
        added_token(base["model"]["vocab"]["he"], "he"),
    ]
    out.append(
        {"added_tokens": special + word, "normalizer": None, "model": {"ignore_merges": True}}
    )
    for flags in [
        {},
        {"lstrip": True},
        {"rstrip": True},
        {"lstrip": True, "rstrip": True},
        {"single_word": True},
        {"normalized": True},
        {"normalized": True, "rstrip": True},
        {"special": True, "normalized": True, "lstrip": True},
    ]:
        out.append(
            {
                "added_tokens": special
                + [
                    added_token(n, "<x>", **flags),
                    added_token(n + 1, "<y>", **flags),
                    added_token(n + 2, "<z>", **flags),
                    added_token(base["model"]["vocab"]["he"], "he", **flags),
                    added_token(n + 3, "<x>he", **flags),
                ]
            }
        )
    return out


def apply(base, patch):
    j = copy.deepcopy(base)
    for key, value in patch.items():
        if key == "model":
            j["model"].update(value)
        else:
            j[key] = value
    return j


def random_text(rng, added):
    parts = []
    for _ in range(rng.randint(1, 10)):
        kind = rng.randrange(6)
        if kind == 0:
            parts.append(rng.choice(added))
        elif kind == 1:
            parts.append("".join(rng.choice(" abcdefgh.,!?") for _ in range(rng.randint(1, 20))))
        elif kind == 2:
            parts.append(" " * rng.randint(1, 9))
        elif kind == 3:
            parts.append(
                "".join(
                    chr(
                        rng.choice(
                            [
                                rng.randint(0x20, 0x24F),
                                rng.randint(0x4E00, 0x9FFF),
                                rng.randint(0x1F300, 0x1F6FF),
                            ]
                        )
                    )
                    for _ in range(4)
                )
            )
        elif kind == 4:
            parts.append(rng.choice(added)[: rng.randint(1, 6)])
        else:
            parts.append(rng.choice(PLAIN))
    return "".join(parts)


def encode(t, texts):
    special = {i for i, a in t.get_added_tokens_decoder().items() if a.special and a.normalized}
    ids = [t.encode(x, add_special_tokens=False).ids for x in texts]
    return {
        "texts": texts,
        "ids": ids,
        "decoded": [t.decode([i for i in x if i not in special]) for x in ids],
    }


def random_ids(t, rng):
    bytes_ = [t.token_to_id("<0x%02X>" % b) for b in range(256)]
    lists = [
        [
            rng.choice(bytes_) if rng.random() < 0.5 else rng.randrange(3, t.get_vocab_size())
            for _ in range(rng.randint(1, 12))
        ]
        for _ in range(30)
    ]
    lists += [[t.token_to_id("<0x%02X>" % b) for b in x.encode()] for x in PLAIN[11:14]]
    return {"ids": lists, "decoded": [t.decode(x) for x in lists]}


def real(folder, rng, byte_pieces=True):
    t = Tokenizer.from_file(folder + "/tokenizer.json")
    added = [a.content for _, a in sorted(t.get_added_tokens_decoder().items())][:6]
    texts = PLAIN + [x.format(*(added[1:] + added)) for x in ADDED]
    texts += [random_text(rng, added) for _ in range(40)]
    out = encode(t, texts)
    if byte_pieces:
        out["random"] = random_ids(t, rng)
    return out


def main():
    shared, trained = sys.argv[1:3]
    rng = random.Random(20240501)
    base = toy()
    variants = []
    for patch in patches(base):
        t = Tokenizer.from_str(json.dumps(apply(base, patch)))
        got = encode(t, TOY_TEXTS)
        variants.append({"patch": patch, "ids": got["ids"], "decoded": got["decoded"]})
    golden = {
        "tokenizers/phi-3-mini": real(shared + "/tokenizers/phi-3-mini", rng),
        "tokenizers/minueza-32m-mistral": real(shared + "/tokenizers/minueza-32m-mistral", rng),
        "checkpoints/tinystories-656k-hf": real(
            shared + "/checkpoints/tinystories-656k-hf", rng, False
        ),
        "trained": real(trained, rng),
        "toy": {"base": base, "texts": TOY_TEXTS, "variants": variants},
    }
    lines = [
        "%s:%s" % (json.dumps(k), json.dumps(v, separators=(",", ":"))) for k, v in golden.items()
    ]
    print("{" + ",\n".join(lines) + "}")


main()
