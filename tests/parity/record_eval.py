# SPDX-License-Identifier: Apache-2.0
"""Records log-likelihoods of continuations for the parity test of `eval`.

    /tmp/parity/bin/python tests/parity/record_eval.py MODEL   # writes tests/parity/data/eval

MODEL is the TinyStories-656K folder that the tests of golden figures use. The rules are those of
the lm-evaluation-harness, written down here from its documentation: white space at the end of a
context is moved to the continuation; both are encoded as one text (with what the tokenizer puts in
front); the continuation is what lies behind as many ids as the context alone has; an empty context
is BOS; an input that is too long loses its beginning; the score is the sum of the log-probabilities
of the continuation's ids. float64 throughout (double.py).

    cases.json  {"most": input tokens at most,
                 "cases": [{"context", "continuation", "ids", "first", "sum"}]}
"""

import json
import os
import sys

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

import double

MOST = 64

CONTEXTS = [
    ("Once upon a time", [" there was a little girl", " a dog", " the"]),
    ("Once upon a time ", ["there was a little girl", " a dog"]),
    (
        "The cat sat on the mat.\nDoes this mean that \"The mat is red.\" is true? Yes or No?\n",
        ["Yes", "No", "Maybe"],
    ),
    ("It rained so", [" the man left.", " he stayed."]),
    ("", ["Once upon a time", "Yes"]),
    ("tabs\t\n \t", ["and more", "x"]),
    ("two spaces\u00a0\u3000", ["and more"]),
    ("caf\u00e9 \u20ac \u4e2d\u6587", [" \U0001f600", " and"]),
    ("One day, Lily saw a bird on the ground. She picked it up. " * 9, ["Yes", " She was happy."]),
    ("a", [" b", "\n"]),
]


def encode(tokenizer, context, continuation):
    if not context:
        ids = tokenizer.encode("").ids[:1]
        return ids + tokenizer.encode(continuation, add_special_tokens=False).ids, 1
    bare = context.rstrip()
    whole = tokenizer.encode(context + continuation).ids
    return whole, len(tokenizer.encode(bare).ids)


def score(model, ids, first):
    start = max(0, len(ids) - 1 - MOST)
    inputs = torch.tensor([ids[start:-1]])
    logits = model(inputs).logits[0].double()
    logp = torch.log_softmax(logits, -1)
    at = range(first - start - 1, len(ids) - start - 1)
    return float(sum(logp[i, ids[start + i + 1]] for i in at))


def main():
    folder = sys.argv[1]
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    cases = []
    weights = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    weights = {name: w.double() for name, w in weights.items()}
    with double.everything(), torch.no_grad():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        model.load_state_dict(weights)
        model.eval()
        for context, continuations in CONTEXTS:
            for continuation in continuations:
                ids, first = encode(tokenizer, context, continuation)
                cases.append({"context": context, "continuation": continuation, "ids": ids,
                              "first": first, "sum": round(score(model, ids, first), 7)})
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "eval")
    os.makedirs(here, exist_ok=True)
    with open(os.path.join(here, "cases.json"), "w", encoding="ascii") as f:
        json.dump({"most": MOST, "cases": cases}, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
