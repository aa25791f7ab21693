#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures a whole training step of PyTorch and of tailrace beside it. Needs torch, transformers.

Both train all parameters of the same model without clipping, by one of two recipes:

  sgd    on the CPU: f32, eager, resident in RAM, plain SGD, activations kept, 1024 tokens a step (4
         rows of 256), the same number of threads
  lomo   on a GPU (--device cuda): bf16, activation checkpointing, every parameter updated inside
         the backward pass by lomo-optim, or where that is missing by hooks that do the same

    python3 tools/compare-torch.py config.json --threads 2
    python3 tools/compare-torch.py config.json --threads 2 --tailrace build/tools/tailrace
    python3 tools/compare-torch.py config.json --device cuda --seq-len 2048 --tailrace PROGRAM

With --tailrace the two programs take turns, `--rounds` times each, so that a machine whose speed
drifts slows both; every round is a fresh process. Printed: the median of all steps but each
process's first, and PyTorch's seconds over tailrace's (at least 1: tailrace is at least as fast).
On a GPU tailrace gets half of the device memory that PyTorch had allocated at its peak, or the
least that it says would do, where that is more.
Weights are random, tokens too: neither program's time depends on them.
"""

import argparse
import json
import os
import random
import re
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
    parser.add_argument("--device", default="cpu", help="of both: cpu, cuda or cuda:N")
    parser.add_argument("--recipe", choices=("sgd", "lomo"), help="sgd on the cpu, lomo on a GPU")
    parser.add_argument("--device-memory", help="of tailrace; sgd: 80%%, all must be resident")
    parser.add_argument("--store", metavar="DIR", help="folder for tailrace's parameters")
    parser.add_argument("--table", action="store_true", help="rows of a Markdown table at the end")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.recipe = options.recipe or ("sgd" if options.device == "cpu" else "lomo")
    return options


def fuse_updates(model, rate):
    """The backward pass with every update inside it; returns a function of the loss, and a name."""
    import torch

    try:
        os.environ.setdefault("LOCAL_RANK", "0")
        import lomo_optim

        optimizer = lomo_optim.Lomo(model, lr=rate)
        return lambda loss: optimizer.fused_backward(loss, rate), "lomo-optim"
    except Exception as error:  # whatever it is: then without it
        print(f"no lomo-optim ({error}): fused by hooks", file=sys.stderr)

    def update(parameter):
        with torch.no_grad():
            parameter.add_(parameter.grad, alpha=-rate)
        parameter.grad = None

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(update)
    return lambda loss: loss.backward(), "hooks"


def lomo_steps(options):
    """The recipe of the GPU: seconds of each step, bytes allocated at the peak, and how."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    on_gpu = options.device != "cpu"
    config = AutoConfig.from_pretrained(options.config)
    config.use_cache = False
    with torch.device(options.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).train()
        ids = torch.randint(0, config.vocab_size, (options.rows, options.seq_len))
    model.gradient_checkpointing_enable()
    backward, how = fuse_updates(model, 1e-5)
    seconds = []
    for _ in range(options.steps + 1):
        start = time.perf_counter()
        backward(model(input_ids=ids, labels=ids).loss)
        if on_gpu:
            torch.cuda.synchronize(options.device)
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(options.device) if on_gpu else 0
    return {"seconds": seconds, "peak": peak, "how": how}


def sgd_steps(options):
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
    return {"seconds": seconds, "peak": 0, "how": "SGD"}


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
        "--device",
        options.device,
        "--recipe",
        options.recipe,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"compare-torch: PyTorch failed:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])


def prepare(options, folder):
    """Enough rows of random tokens."""
    with open(options.config, encoding="utf-8") as file:
        vocab = json.load(file)["vocab_size"]
    data = os.path.join(folder, "data.jsonl")
    with open(data, "w", encoding="utf-8") as out:
        for _ in range(options.rows * (options.steps + 1)):
            ids = [random.randrange(vocab) for _ in range(options.seq_len)]
            out.write(json.dumps({"input_ids": ids, "labels": ids}) + "\n")
    return data


def own_options(options, memory):
    """What the recipe means for tailrace."""
    if options.recipe == "sgd":
        return [
            "--optimizer",
            "sgd",
            "--dtype",
            "f32",
            "--recompute",
            "none",
            "--device-memory",
            options.device_memory or "80%",
        ]
    words = ["--optimizer", "lomo", "--dtype", "bf16"]
    return words + (["--device-memory", str(memory)] if memory else [])


def least_memory(message):
    """Of a refusal: bytes that would do for the plan, or a beginning beyond the device's own."""
    plan = re.search(r"smallest that would do is (\d+)", message)
    own = re.search(r"itself needs ([0-9.]+) MiB", message)
    return int(plan[1]) if plan else int(float(own[1]) + 65) << 20 if own else None


def tailrace_round(options, torch, data, folder):
    memory = options.device_memory or torch["peak"] // 2
    result = None
    for _ in range(1 if options.device_memory else 3):
        result = tailrace_try(options, memory, data, folder)
        memory = least_memory(result.stderr) if result.returncode else None
        if not memory:
            break
    if result.returncode:
        sys.exit(f"compare-torch: {' '.join(result.args)} failed:\n{result.stderr}")
    with open(os.path.join(folder, "run", "metrics.jsonl"), encoding="utf-8") as file:
        steps = [json.loads(line) for line in file]
    return {
        "seconds": [step["seconds"] for step in steps],
        "peak": steps[-1]["device_peak_bytes"],
    }


def tailrace_try(options, memory, data, folder):
    run = os.path.join(folder, "run")
    store = os.path.join(options.store or folder, "store")
    shutil.rmtree(run, ignore_errors=True)
    shutil.rmtree(store, ignore_errors=True)
    command = [
        options.tailrace,
        "train",
        "--arch",
        options.config,
        "--seed",
        "1",
        "--device",
        options.device,
        "--store",
        store,
        "--data",
        data,
        "--out",
        run,
        "--lr",
        "1e-5",
        "--schedule",
        "constant",
        "--warmup",
        "0",
        "--clip-norm",
        "0",
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
        "--export",
        "no",
        "--durability",
        "none",
    ] + own_options(options, memory)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def table(result, torch, tailrace):
    tokens = result["tokens"]
    speeds = f"{tokens / result['tailrace_seconds']:.0f} / {tokens / result['torch_seconds']:.0f}"
    what = f"tailrace / PyTorch ({torch['how']}, checkpointing), bf16, {tokens} tokens a step"
    print(f"| {what}: tokens/s | {speeds} | {result['ratio']:.3f} | at least 1.3 |")
    if torch["peak"]:
        print(
            f"| {what}: device peak, MiB | {tailrace['peak'] / 2**20:.0f} / "
            f"{torch['peak'] / 2**20:.0f} | {tailrace['peak'] / torch['peak']:.3f} | at most 0.5 |"
        )


def report(options, torch, tailrace):
    torch_seconds = [s for r in torch for s in r["seconds"][1:]]
    tailrace_seconds = [s for r in tailrace for s in r["seconds"][1:]]
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
        if options.table:
            table(result, torch[-1], tailrace[-1])
    if options.json:
        print(json.dumps(result))


def main():
    options = arguments()
    if options.worker:
        print(json.dumps(sgd_steps(options) if options.recipe == "sgd" else lomo_steps(options)))
        return
    torch, tailrace = [], []
    load = os.getloadavg()[0]
    if load > 0.5 and options.device == "cpu":
        print(f"Beware: load {load:.1f} before the start; only a quiet machine compares fairly.")
    with tempfile.TemporaryDirectory(prefix="compare-torch-") as folder:
        if options.tailrace:
            data = prepare(options, folder)
        for _ in range(options.rounds):
            torch.append(torch_round(options))
            if options.tailrace:
                tailrace.append(tailrace_round(options, torch[-1], data, folder))
    report(options, torch, tailrace)


if __name__ == "__main__":
    main()
