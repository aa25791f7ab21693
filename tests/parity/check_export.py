#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks with transformers itself that folders exported by tailrace load and compute what they
should.

    python3 tests/parity/check_export.py EXPORTED SOURCE    a round trip without training
    python3 tests/parity/check_export.py --tailrace BINARY  trains every model of data/ and checks

The first compares names, dtypes and shapes of the tensors, the logits and a greedy continuation
of the two folders. The second runs each sgd run of record.py through the command line, exports,
and compares with the same folder holding the recorded final weights. Exit 0, 1, or 77 where torch
is absent.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM
except ImportError as missing:
    print(f"check_export: skipped, {missing}")
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
TOLERANCE = 1e-4  # of logits
LENGTH = 24  # tokens of the prompt; as many are continued


def load(folder):
    """The model as any user loads it; a missing or surplus tensor is an error here."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    problems = {key: sorted(value) for key, value in info.items() if value}
    if problems:
        raise ValueError(f"{folder}: {problems}")
    return model.eval()


def tensors(folder):
    found = {}
    for file in sorted(os.listdir(folder)):
        if file.endswith(".safetensors"):
            found.update(load_file(os.path.join(folder, file)))
    return found


def greedy(model, prompt, count):
    """Whole forward passes: no cache, whose window handling would be a second thing under test."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            ids.append(
                int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            )
    return ids


def same_tensors(exported, source):
    a, b = tensors(exported), tensors(source)
    if a.keys() != b.keys():
        raise ValueError(f"{exported}: other tensors than {source}: {sorted(a.keys() ^ b.keys())}")
    for name, tensor in a.items():
        if tensor.shape != b[name].shape or tensor.dtype != b[name].dtype:
            raise ValueError(
                f"{exported}: {name} is {tensor.dtype} {tuple(tensor.shape)}, in {source} "
                f"{b[name].dtype} {tuple(b[name].shape)}"
            )


def compare(exported, source):
    """Largest distance of logits; raises where the folders are not the same model."""
    same_tensors(exported, source)
    ours, theirs = load(exported), load(source)
    generator = torch.Generator().manual_seed(5)
    prompt = torch.randint(0, ours.config.vocab_size, (LENGTH,), generator=generator).tolist()
    ids = greedy(theirs, prompt, LENGTH)
    with torch.no_grad():
        a, b = (m(input_ids=torch.tensor([ids]), use_cache=False).logits for m in (ours, theirs))
    far = (a - b).abs().max().item()
    if far > TOLERANCE:
        raise ValueError(f"{exported}: logits are {far:.1e} from those of {source}")
    if greedy(ours, prompt, LENGTH) != ids:
        raise ValueError(f"{exported}: the greedy continuation is not that of {source}")
    return far


def train(binary, recorded, out):
    """One recorded sgd run through the command line; the exported folder."""
    with open(os.path.join(recorded, "sgd.json"), encoding="utf-8") as file:
        run = json.load(file)
    command = [
        binary,
        "train",
        "--model",
        os.path.join(recorded, "model"),
        "--data",
        os.path.join(recorded, "train.jsonl"),
        "--out",
        out,
        "--optimizer",
        "sgd",
        "--lr",
        repr(run["lr"]),
        "--schedule",
        "constant",
        "--warmup",
        "0",
        "--clip-norm",
        "0",
        "--steps",
        str(run["steps"]),
        "--batch-size",
        "4",
        "--packing",
        "off",
        "--durability",
        "none",
        "--threads",
        "1",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return os.path.join(out, "model")


def expected(recorded, out):
    """The source folder with the recorded final weights in one file."""
    os.makedirs(out)
    shutil.copy(os.path.join(recorded, "model", "config.json"), out)
    save_file(
        load_file(os.path.join(recorded, "sgd.safetensors")),
        os.path.join(out, "model.safetensors"),
        metadata={"format": "pt"},
    )
    return out


def check_all(binary):
    failed = 0
    for name in sorted(os.listdir(os.path.join(HERE, "data"))):
        recorded = os.path.join(HERE, "data", name)
        if not os.path.exists(os.path.join(recorded, "sgd.json")):
            continue
        with tempfile.TemporaryDirectory(prefix="check-export-") as folder:
            try:
                exported = train(binary, recorded, os.path.join(folder, "run"))
                far = compare(exported, expected(recorded, os.path.join(folder, "expected")))
                print(f"{name:22} logits within {far:.1e}, greedy continuation equal")
            except (ValueError, OSError, subprocess.CalledProcessError) as error:
                print(f"{name:22} FAILED: {error}")
                failed += 1
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", metavar="EXPORTED SOURCE")
    parser.add_argument("--tailrace", metavar="BINARY")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.tailrace:
        sys.exit(1 if check_all(options.tailrace) else 0)
    if len(options.folders) != 2:
        parser.error("two folders, or --tailrace")
    try:
        print(f"logits within {compare(*options.folders):.1e}, greedy continuation equal")
    except ValueError as error:
        print(f"check_export: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
