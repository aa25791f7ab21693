#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""MB per second of one processor, against the reference on one thread (pip install tokenizers).

    speed.py SPEED SHARED_DATA [NAME...]

SPEED is tests/text/test_text_speed of a build. One line a family and text: MB/s of ours, of the
reference, and the ratio; then seconds for 1 MB of each pathological text. Ids are compared in
number.
"""
import json
import os
import subprocess
import sys
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Tokenizer  # noqa: E402

HARD = {"a": "a", "spaces": " ", "newlines": "\n", "marks": "\u0301\u0323", "capitals": "AB",
        "digits": "7", "dots": ".", "quotes": "'", "han": "\u4e2d\u6587", "thai": "\u0e01\u0e34"}


def build(shared, f):
    folder = shared + "/tokenizers/"
    if "vocab" in f:  # of unigram.json
        j = json.loads(json.dumps(f["frame"]).replace('"charsmap"', json.dumps(f["charsmap"])))
        j["model"]["vocab"] = f["vocab"]
        return j
    if "file" in f:
        return dict(json.load(open(folder + f["file"], encoding="utf-8")), **f["frame"])
    j = f["frame"]
    j["model"]["vocab"] = json.load(open(folder + f["parts"][0], encoding="utf-8"))
    lines = open(folder + f["parts"][1], encoding="utf-8").read().split("\n")
    j["model"]["merges"] = [x for x in lines if x and not x.startswith("#version")]
    return j


def ours(speed, folder, text):
    path = folder + "/text"
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    out = subprocess.run([speed, folder, path], capture_output=True, text=True, check=True).stdout
    return float(out.split()[0]), int(out.split()[1])


def theirs(t, text):
    best = 1e9
    for _ in range(2):
        start = time.process_time()
        n = len(t.encode(text, add_special_tokens=False).ids)
        best = min(best, time.process_time() - start)
    return best, n


def main():
    speed, shared = sys.argv[1:3]
    here = os.path.dirname(os.path.abspath(__file__))
    families = json.load(open(here + "/families.json", encoding="utf-8"))
    unigram = json.load(open(here + "/unigram.json", encoding="utf-8"))
    for name, f in unigram["families"].items():
        families[name] = dict(f, vocab=unigram["vocab"], charsmap=unigram["charsmap"])
    texts = {name: open(shared + "/datasets/" + name, encoding="utf-8", newline="").read()[:10**6]
             for name in ["text/tinyshakespeare.txt", "gsm8k/train.jsonl"]}
    for name in sys.argv[3:] or ["gpt2", "qwen2", "llama3", "tekken", "falcon", "phi-3",
                                 "xlm-r", "llama"]:
        with tempfile.TemporaryDirectory() as folder:
            j = json.dumps(build(shared, families[name]))
            open(folder + "/tokenizer.json", "w", encoding="utf-8").write(j)
            t = Tokenizer.from_str(j)
            for label, text in texts.items():
                (a, n), (b, m) = ours(speed, folder, text), theirs(t, text)
                size = len(text.encode()) / 1e6
                print("%-8s %-24s %7.2f MB/s, reference %7.2f, ratio %5.2f%s" %
                      (name, label, size / a, size / b, b / a, "" if n == m else " DIFFERS"))
            hard = {k: ours(speed, folder, v * (10**6 // len(v.encode())))[0]
                    for k, v in HARD.items()}
            print("%-8s 1 MB of" % name, ", ".join("%s %.2f s" % x for x in hard.items()))
            sys.stdout.flush()


main()
