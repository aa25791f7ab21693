# SPDX-License-Identifier: Apache-2.0
"""Records what PEFT computes, for the tests of adapters (lora.c).

To record again, with the packages that record.py names, and peft and xxhash:

    /tmp/parity/bin/python tests/parity/record_lora.py       # writes tests/parity/data/MODEL/lora-*

    MODEL/RUN.json                options; losses, float64, one a step; norms: of the adapters'
                                  gradient before clipping; base_norms: of the model's, where it is
                                  trained as well; torch_f32_distance, as in record.py
    MODEL/RUN/start/              the adapters it begins with, as PEFT's save_pretrained writes them
    MODEL/RUN/final.safetensors   what has been trained: adapters in PEFT's names, the model's own
    MODEL/RUN/train.jsonl         the rows, where they are not those of MODEL/train.jsonl

Dropout is PEFT's with another generator: a mask is made of the words that the trainer draws, by
Philox4x32-10 from (seed, step, name of A, element of the batch's input).
"""

import json
import os
import shutil

import numpy
import torch
import xxhash
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

import double
from record import ADAMW, build, distance, mean_loss, read_weights, write_json

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = 20
SEED = 5
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Model, run, options. `fresh`: B is zero, as PEFT begins; else it is random, so that what is read
# acts from the first step on.
RUNS = [
    ("llama", "lora-adamw", {**ADAMW, "lr": 0.03, "rank": 4, "alpha": 8, "fresh": True,
                             "targets": ["q_proj", "v_proj"]}),
    ("qwen2", "lora-sgd-clip", {"optimizer": "sgd", "lr": 0.035, "weight_decay": 0.0,
                                "clip_norm": 2.0, "rank": 3, "alpha": 9, "targets": LINEAR}),
    ("qwen3", "lora-dropout", {**ADAMW, "lr": 0.02, "rank": 2, "alpha": 8, "dropout": 0.25,
                               "rows": 1, "targets": ["q_proj", "k_proj", "o_proj", "down_proj"]}),
    ("llama-tied", "lora-lomo", {"optimizer": "lomo", "lr": 0.03, "weight_decay": 0.0,
                                 "clip_norm": 1.0, "rank": 4, "alpha": 8, "beta1": 0.9,
                                 "beta2": 0.999, "eps": 1e-5, "lora_optimizer": "adamw",
                                 "lora_lr": 5e-3, "lora_clip_norm": 0.5,
                                 "targets": ["q_proj", "v_proj", "up_proj"]}),
]  # fmt: skip


def philox(counter, key):
    """Salmon et al., SC'11: ten rounds on arrays of four words."""
    c = [numpy.asarray(x, dtype=numpy.uint64) for x in counter]
    k0, k1 = key
    low = numpy.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = numpy.uint64(0xD2511F53) * c[0], numpy.uint64(0xCD9E8D57) * c[2]
        c = [
            (p1 >> numpy.uint64(32)) ^ c[1] ^ numpy.uint64(k0),
            p1 & low,
            (p0 >> numpy.uint64(32)) ^ c[3] ^ numpy.uint64(k1),
            p0 & low,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


class DrawnDropout(torch.nn.Module):
    step = 0  # of all of them

    def __init__(self, name, share):
        super().__init__()
        self.key = xxhash.xxh3_64_intdigest(name.encode()) & 0xFFFFFFFF ^ 0x85EBCA6B
        self.share = share

    def forward(self, x):
        index = numpy.arange(x.numel(), dtype=numpy.uint64)
        group, zero = index // numpy.uint64(4), numpy.zeros(x.numel(), dtype=numpy.uint64)
        words = philox([group, zero, zero + numpy.uint64(self.step), zero], (SEED, self.key))
        word = numpy.stack(words)[index % numpy.uint64(4), numpy.arange(x.numel())]
        kept = torch.from_numpy(word >= self.share * 2.0**32).reshape(x.shape)
        return torch.where(kept, x / (1 - self.share), torch.zeros((), dtype=x.dtype))


def trained(model):
    """Names as files have them, to detached tensors."""
    names = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            name = name.replace(".default.weight", ".weight").replace(".base_layer.", ".")
            is_adapter = ".lora_" in name
            names[name if is_adapter else name.replace("base_model.model.", "", 1)] = p
    return names


def open_model(folder, start, dtype, options):
    base = build(folder, read_weights(folder), dtype)
    model = PeftModel.from_pretrained(base, start, is_trainable=True, autocast_adapter_dtype=False)
    for name, p in model.named_parameters():
        p.data = p.data.to(dtype)
        p.requires_grad_(".lora_" in name or "lora_optimizer" in options)
    for name, module in model.named_modules():
        if hasattr(module, "lora_dropout") and options.get("dropout"):
            short = name.replace("base_model.model.", "", 1) + ".lora_A.weight"
            module.lora_dropout["default"] = DrawnDropout(short, options["dropout"])
    return model.train()


def optimizer_of(name, lr, options, tensors):
    if name == "adamw":
        betas = (options["beta1"], options["beta2"])
        return torch.optim.AdamW(
            tensors, lr=lr, betas=betas, eps=options["eps"], weight_decay=options["weight_decay"]
        )
    return torch.optim.SGD(tensors, lr=lr)  # LOMO's update is SGD's


def clip(tensors, limit):
    return torch.nn.utils.clip_grad_norm_(tensors, limit or float("inf")).item() if tensors else 0.0


def train(model, rows, options):
    tensors = trained(model)
    adapters = [p for n, p in tensors.items() if ".lora_" in n]
    base = [p for n, p in tensors.items() if ".lora_" not in n]
    name, lr = options["optimizer"], options["lr"]
    limit, optimizers = options["clip_norm"], []
    if base:
        optimizers.append(optimizer_of(name, lr, options, base))
        name, lr, limit = (options["lora_" + key] for key in ("optimizer", "lr", "clip_norm"))
    optimizers.append(optimizer_of(name, lr, options, adapters))
    losses, norms, base_norms = [], [], []
    for step in range(STEPS):
        DrawnDropout.step = step + 1
        loss = mean_loss(model, rows)
        for p in tensors.values():
            p.grad = None
        loss.backward()
        base_norms.append(clip(base, options["clip_norm"]))
        norms.append(clip(adapters, limit))
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    return losses, norms, base_norms, {n: p.detach().clone() for n, p in tensors.items()}


def make_start(folder, start, options):
    """PEFT's own folder, without the places of this machine."""
    torch.manual_seed(SEED)
    config = LoraConfig(
        r=options["rank"],
        lora_alpha=options["alpha"],
        target_modules=options["targets"],
        lora_dropout=options.get("dropout", 0.0),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(build(folder, read_weights(folder), torch.float32), config)
    for name, p in model.named_parameters():
        if ".lora_B." in name and not options.get("fresh"):
            p.data.normal_(0, 0.1)
    model.save_pretrained(start)
    os.remove(os.path.join(start, "README.md"))
    path = os.path.join(start, "adapter_config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["base_model_name_or_path"] = "model"
    config["target_modules"].sort()  # a set, in any order
    write_json(path, config)


def record(data, owner, name, options):
    out, folder = os.path.join(data, owner, name), os.path.join(data, owner, "model")
    start = os.path.join(out, "start")
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    make_start(folder, start, options)
    with open(os.path.join(data, owner, "train.jsonl"), encoding="utf-8") as file:
        lines = file.readlines()[: options.get("rows")]
    if "rows" in options:
        with open(os.path.join(out, "train.jsonl"), "w", encoding="utf-8") as file:
            file.writelines(lines)
    rows = [json.loads(line) for line in lines]
    exact_model = open_model(folder, start, torch.float64, options)
    with double.everything():
        losses, norms, base_norms, exact = train(exact_model, rows, options)
    single = train(open_model(folder, start, torch.float32, options), rows, options)
    worst = max(abs(a - b) for a, b in zip(losses, single[0]))
    assert losses[0] - losses[-1] > 1.0, f"{owner} {name}: {losses[0]} -> {losses[-1]}"
    assert worst < 3e-6, f"{owner} {name}: ill-conditioned, {worst:.1e}"
    save_file({n: w.float() for n, w in exact.items()}, os.path.join(out, "final.safetensors"))
    distances = {n: distance(single[3][n], w) for n, w in exact.items()}
    write_json(
        os.path.join(data, owner, name + ".json"),
        {
            **options,
            "seed": SEED,
            "steps": STEPS,
            "losses": losses,
            "norms": norms,
            "base_norms": base_norms,
            "torch_f32_distance": distances,
        },
    )
    print(
        f"{owner} {name:14} loss {losses[0]:.3f} -> {losses[-1]:.3f}, f32 losses within "
        f"{worst:.1e}, weights {min(distances.values()):.1e} to {max(distances.values()):.1e}, "
        f"norms {min(norms):.2f} to {max(norms):.2f}",
        flush=True,
    )


def main():
    torch.set_num_threads(1)
    for owner, name, options in RUNS:
        record(os.path.join(HERE, "data"), owner, name, options)


if __name__ == "__main__":
    main()
