#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures a whole training step of PyTorch, f32 eager, resident in RAM, and of tailrace beside it.

Both train all parameters of the same model by plain SGD without clipping on 1024 tokens a step (4
rows of 256), with the same number of threads and activations kept. Needs torch and transformers.

    python3 tools/compare-torch.py config.json --threads 2
    python3 tools/compare-torch.py config.json --threads 2 --tailrace build/tools/tailrace

With --tailrace the two programs take turns, `--rounds` times each, so that a machine whose speed
drifts slows both; every round is a fresh process. Printed: the median of all steps but each
process's first, and PyTorch's seconds over tailrace's (at least 1: tailrace is at least as fast).
Weights are random, tokens too: neither program's time depends on them.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="a config.json of Hugging Face")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4, help="measured steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tailrace", metavar="BINARY", help="the program to compare with")
    parser.add_argument("--device-memory", default="80%", help="of tailrace; all must be resident")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def torch_steps(options):
    """Seconds of each step in this process, the first (allocation) included."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(options.config)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    ids = torch.randint(0, config.vocab_size, (options.rows, options.seq_len))
    seconds = []
    for _ in range(options.steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def torch_round(options):
    """A fresh process, whose memory is gone when the other program runs. The number of threads must
    stand in the environment before torch is loaded."""
    command = [
        sys.executable,
        os.path.abspath(__file__),
        options.config,
        "--worker",
        "--threads",
        str(options.threads),
        "--rows",
        str(options.rows),
        "--seq-len",
        str(options.seq_len),
        "--steps",
        str(options.steps),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"compare-torch: PyTorch failed:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])[1:]


def prepare(options, folder):
    """A random model of the same shape and enough rows of random tokens."""
    with open(options.config, encoding="utf-8") as file:
        vocab = json.load(file)["vocab_size"]
    model, data = os.path.join(folder, "model"), os.path.join(folder, "data.jsonl")
    subprocess.run(
        [
            options.tailrace,
            "init",
            "--arch",
            options.config,
            "--seed",
            "1",
            "--dtype",
            "f32",
            "--out",
            model,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with open(data, "w", encoding="utf-8") as out:
        for _ in range(options.rows * (options.steps + 1)):
            ids = [random.randrange(vocab) for _ in range(options.seq_len)]
            out.write(json.dumps({"input_ids": ids, "labels": ids}) + "\n")
    return model, data


def tailrace_round(options, model, data, folder):
    run = os.path.join(folder, "run")
    shutil.rmtree(run, ignore_errors=True)
    command = [
        options.tailrace,
        "train",
        "--model",
        model,
        "--data",
        data,
        "--out",
        run,
        "--optimizer",
        "sgd",
        "--lr",
        "1e-4",
        "--schedule",
        "constant",
        "--warmup",
        "0",
        "--clip-norm",
        "0",
        "--dtype",
        "f32",
        "--packing",
        "off",
        "--seq-len",
        str(options.seq_len),
        "--batch-size",
        str(options.rows),
        "--steps",
        str(options.steps + 1),
        "--threads",
        str(options.threads),
        "--recompute",
        "none",
        "--export",
        "no",
        "--durability",
        "none",
        "--device-memory",
        options.device_memory,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"compare-torch: {' '.join(command)} failed:\n{result.stderr}")
    with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as file:
        return [json.loads(line)["seconds"] for line in file][1:]


def report(options, torch_seconds, tailrace_seconds):
    tokens = options.rows * options.seq_len
    result = {
        "threads": options.threads,
        "tokens": tokens,
        "torch_seconds": statistics.median(torch_seconds),
    }
    print(
        f"PyTorch   {result['torch_seconds']:8.4f} s a step (best {min(torch_seconds):.4f}), "
        f"{tokens / result['torch_seconds']:.0f} tokens/s"
    )
    if tailrace_seconds:
        result["tailrace_seconds"] = statistics.median(tailrace_seconds)
        result["ratio"] = result["torch_seconds"] / result["tailrace_seconds"]
        print(
            f"tailrace  {result['tailrace_seconds']:8.4f} s a step "
            f"(best {min(tailrace_seconds):.4f}), "
            f"{tokens / result['tailrace_seconds']:.0f} tokens/s"
        )
        print(f"PyTorch's time / tailrace's time: {result['ratio']:.2f}")
    if options.json:
        print(json.dumps(result))


def main():
    options = arguments()
    if options.worker:
        print(json.dumps(torch_steps(options)))
        return
    torch_seconds, tailrace_seconds = [], []
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"Beware: load {load:.1f} before the start; only a quiet machine compares fairly.")
    with tempfile.TemporaryDirectory(prefix="compare-torch-") as folder:
        if options.tailrace:
            model, data = prepare(options, folder)
        for _ in range(options.rounds):
            torch_seconds += torch_round(options)
            if options.tailrace:
                tailrace_seconds += tailrace_round(options, model, data, folder)
    report(options, torch_seconds, tailrace_seconds)


if __name__ == "__main__":
    main()
