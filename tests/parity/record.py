# SPDX-License-Identifier: Apache-2.0
"""Records what PyTorch, transformers, lomo-optim and adam-mini compute, for the parity tests.

To record again (about two minutes on one core; the output is the same for the same package
versions and the same kind of CPU):

    python3 -m venv /tmp/parity
    /tmp/parity/bin/pip install torch transformers safetensors numpy
    /tmp/parity/bin/pip install --no-deps lomo-optim==0.1.1 adam-mini==1.1.1
    /tmp/parity/bin/python tests/parity/record.py            # writes tests/parity/data
    /tmp/parity/bin/python tests/parity/record.py --runs adalomo   # only these of EXTRA, beside it

The tests need none of these packages: they read the files under data/.

    versions.json                 packages and CPU that the files were recorded with
    NAME/model/                   a tiny random model as a Hugging Face folder (see folders.py)
    NAME/train.jsonl              the batch of the training runs, pre-tokenised, four rows
    NAME/logits.json              {"sequences": [{"tensor", "ids", "torch_f32_max_distance"}]}
    NAME/logits.safetensors       logits.0, logits.1, ...: (tokens, vocab), f32 rounding of float64
    NAME/RUN.json                 one training run: its options (lr, beta1, ..., clip_norm), and
                                  losses, grad_norms (before clipping): float64, one a step;
                                  torch_f32_losses: PyTorch's own f32 run;
                                  weights: name of the file of final weights;
                                  torch_f32_distance: per tensor, |f32 - float64| / |float64|;
                                  moved: per tensor, |final - initial| / |final|
    NAME/RUN.safetensors          final weights: f32 rounding of float64 (lomo: the f32 run)
    lomo-bf16/cases.json          {"cases": [{"name", "lr", "weight_decay", "clip_value",
                                  "coefficient"}]}
    lomo-bf16/cases.safetensors   NAME.weight, NAME.gradient (bf16 or f32), NAME.result

Every loss is the mean over all targets of the batch. Rows are run one by one, so that there is no
padding. "float64" is meant in full, see double.py; `model.double()` would leave norms, softmax
and rope in f32.
"""

import argparse
import json
import os
import platform
import shutil
from importlib.metadata import version

import adam_mini
import lomo_optim
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import double
import folders

STEPS = 20
ADAMW = {
    "optimizer": "adamw",
    "lr": 1e-3,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-5,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
}  # decay is of every tensor
SGD = {"optimizer": "sgd", "weight_decay": 0.0, "clip_norm": 0.0}
ADAM_MINI = {**ADAMW, "optimizer": "adam-mini"}
ADALOMO = {"optimizer": "adalomo", "lr": 0.02, "weight_decay": 0.0, "clip_norm": 0.0}
# Runs beyond plain AdamW and SGD: name of the model, name of the run, options. AdaLomo is not run
# on qwen2, whose keys have a bias that no loss depends on: its gradient is rounding alone, which
# AdaLomo would bring to full size.
EXTRA = [
    ("llama-tied", "adamw-clip", {**ADAMW, "clip_norm": 1.0}),
    ("llama-tied", "adamw-decay", {**ADAMW, "weight_decay": 0.1}),
    ("llama-tied", "sgd-clip", {**SGD, "lr": 0.06, "clip_norm": 1.0}),
    ("llama", "sgd-momentum", {**SGD, "lr": 0.02, "momentum": 0.9}),
    ("qwen3", "adam-mini", {**ADAM_MINI, "lr": 3e-3}),
    ("qwen2", "adam-mini", {**ADAM_MINI, "lr": 3e-3, "weight_decay": 0.1}),
    ("llama-tied", "adalomo", ADALOMO),
    ("mistral", "adalomo", {**ADALOMO, "weight_decay": 0.1}),
]


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out, indent=1)
        out.write("\n")


def read_weights(folder):
    weights = {}
    for file in sorted(os.listdir(folder)):
        if file.endswith(".safetensors"):
            weights.update(load_file(os.path.join(folder, file)))
    return weights


def build(folder, weights, dtype):
    """The model of a folder in one dtype; eager attention where every operation must be float64."""
    config = AutoConfig.from_pretrained(folder)
    attention = "eager" if dtype is torch.float64 else "sdpa"
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    result = model.load_state_dict({name: w.to(dtype) for name, w in weights.items()}, strict=False)
    assert not result.unexpected_keys
    assert config.tie_word_embeddings or not result.missing_keys
    return model.train()


def logits_of(model, ids):
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def mean_loss(model, rows):
    total, targets = 0.0, 0
    for row in rows:
        labels = torch.tensor(row["labels"])[1:]
        logits = logits_of(model, row["input_ids"])[:-1]
        total = total + torch.nn.functional.cross_entropy(
            logits, labels, ignore_index=-100, reduction="sum"
        )
        targets += int((labels != -100).sum())
    return total / targets


def parameters(model):
    """Name to detached weight, in the names of the folder (tied weights once)."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def distance(a, b):
    a, b = a.to(double.REAL_FLOAT64), b.to(double.REAL_FLOAT64)
    return ((a - b).norm() / b.norm()).item()


def record_logits(out, folder, weights, sequences):
    single = build(folder, weights, torch.float32)
    with double.everything(), torch.no_grad():
        exact_model = build(folder, weights, torch.float64)
        exact = [logits_of(exact_model, ids) for ids in sequences]
    entries, tensors = [], {}
    for number, ids in enumerate(sequences):
        with torch.no_grad():
            far = (logits_of(single, ids).double() - exact[number]).abs().max().item()
        tensors[f"logits.{number}"] = exact[number].float()
        entries.append({"tensor": f"logits.{number}", "torch_f32_max_distance": far, "ids": ids})
    write_json(os.path.join(out, "logits.json"), {"sequences": entries})
    save_file(tensors, os.path.join(out, "logits.safetensors"))


def make_adam_mini(model, options):
    """Blocks of queries and keys are head_dim rows also where that is not hidden / heads, which the
    package does not know; values are one block, as its readme advises for short runs."""
    config = model.config
    optimizer = adam_mini.Adam_mini(
        model.named_parameters(),
        lr=options["lr"],
        betas=(options["beta1"], options["beta2"]),
        eps=options["eps"],
        weight_decay=options["weight_decay"],
        dim=config.hidden_size,
        n_heads=config.num_attention_heads,
        n_kv_heads=config.num_key_value_heads,
        verbose=False,
    )
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    optimizer.head_numel = head_dim * config.hidden_size
    optimizer.wv_names = set()
    return optimizer


def make_adalomo(model, options):
    """It puts its state on a GPU, which the recording machine need not have. Its static loss scale
    is a power of two, so that it changes nothing."""
    cuda, torch.Tensor.cuda = torch.Tensor.cuda, lambda tensor: tensor
    try:
        return lomo_optim.AdaLomo(model, lr=options["lr"], weight_decay=options["weight_decay"])
    finally:
        torch.Tensor.cuda = cuda


def make_optimizer(model, options):
    if options["optimizer"] == "sgd":
        momentum = options.get("momentum", 0.0)
        return torch.optim.SGD(model.parameters(), lr=options["lr"], momentum=momentum)
    if options["optimizer"] == "adam-mini":
        return make_adam_mini(model, options)
    if options["optimizer"] == "adalomo":
        return make_adalomo(model, options)
    return torch.optim.AdamW(
        model.parameters(),
        lr=options["lr"],
        eps=options["eps"],
        betas=(options["beta1"], options["beta2"]),
        weight_decay=options["weight_decay"],
    )


def step(model, optimizer, loss, options):
    """The norm before clipping; a fused backward leaves no gradient to measure."""
    if options["optimizer"] == "adalomo":
        optimizer.fused_backward(loss, options["lr"])
        return 0.0
    optimizer.zero_grad()
    loss.backward()
    limit = options["clip_norm"] or float("inf")
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit).item()
    optimizer.step()
    return norm


def train(model, rows, options):
    optimizer = make_optimizer(model, options)
    losses, norms = [], []
    for _ in range(STEPS):
        loss = mean_loss(model, rows)
        norms.append(step(model, optimizer, loss, options))
        losses.append(loss.item())
    return losses, norms, parameters(model)


def record_run(out, name, folder, rows, options):
    weights = read_weights(folder)
    with double.everything():
        losses, norms, exact = train(build(folder, weights, torch.float64), rows, options)
    single_losses, _, single = train(build(folder, weights, torch.float32), rows, options)
    _, _, other = train(build(folder, weights, torch.float32), rows[::-1], options)
    assert losses[0] - losses[-1] > 1.0, f"{folder}, {name}: the loss does not fall by 1 nat"
    worst = max(abs(a - b) for a, b in zip(losses, single_losses))
    save_file({n: w.float() for n, w in exact.items()}, os.path.join(out, name + ".safetensors"))
    distances = {n: distance(single[n], w) for n, w in exact.items()}
    # The same sums in another order: where that alone moves the distance much, nothing is compared.
    spread = max(distance(other[n], w) / distances[n] for n, w in exact.items())
    assert (
        worst < 3e-6 and spread < 1.5
    ), f"{folder}, {name}: ill-conditioned, {worst:.1e} {spread:.2f}"
    write_json(
        os.path.join(out, name + ".json"),
        {
            **options,
            "steps": STEPS,
            "weights": name + ".safetensors",
            "losses": losses,
            "grad_norms": norms,
            "torch_f32_losses": single_losses,
            "torch_f32_distance": distances,
            "moved": {n: distance(weights[n], w) for n, w in exact.items()},
        },
    )
    print(
        f"{name:22} loss {losses[0]:.3f} -> {losses[-1]:.3f}  f32 losses within {worst:.1e}, "
        f"weights {min(distances.values()):.1e} to {max(distances.values()):.1e}, "
        f"rows reversed {spread:.2f} times that",
        flush=True,
    )


def record_model(data, model, generator):
    out = os.path.join(data, model.name)
    folder = os.path.join(out, "model")
    folders.write_folder(model, folder, generator)
    rows = folders.write_batch(model, os.path.join(out, "train.jsonl"), generator)
    sequences = [folders.random_ids(model, length, generator) for length in model.lengths]
    print(model.name)
    record_logits(out, folder, read_weights(folder), sequences)
    record_run(out, "adamw", folder, rows, ADAMW)
    record_run(out, "sgd", folder, rows, {**SGD, "lr": model.sgd_lr})
    for owner, name, options in EXTRA:
        if owner == model.name:
            record_run(out, name, folder, rows, options)
    if model.name == "llama":
        record_lomo_run(out, folder, rows)


def record_extra(data, names):
    """Runs of EXTRA for models that have been recorded, as they are."""
    for owner, name, options in EXTRA:
        out = os.path.join(data, owner)
        if name in names:
            with open(os.path.join(out, "train.jsonl"), encoding="utf-8") as file:
                rows = [json.loads(line) for line in file]
            print(owner)
            record_run(out, name, os.path.join(out, "model"), rows, options)


def linear_schedule(step, steps, warmup, peak):
    """The schedule of LOMO's own trainer: step is 1-based, the last step has lr 0."""
    progress = step / steps
    if progress < warmup:
        return peak * progress / warmup
    return peak * max((progress - 1.0) / (warmup - 1.0), 0.0)


def record_lomo_run(out, folder, rows):
    options = {
        "optimizer": "lomo",
        "lr": 0.15,
        "schedule": "linear",
        "warmup": 0.1,
        "clip_norm": 1.0,
    }
    weights = read_weights(folder)
    model = build(folder, weights, torch.float32)
    optimizer = lomo_optim.Lomo(model, lr=options["lr"], clip_grad_norm=options["clip_norm"])
    losses, norms, coefficients, rates = [], [], [], []
    for step in range(1, STEPS + 1):
        rates.append(linear_schedule(step, STEPS, options["warmup"], options["lr"]))
        loss = mean_loss(model, rows)
        optimizer.grad_norm(loss)
        norms.append(torch.norm(optimizer.grad_norms, 2.0).item())
        coefficients.append(optimizer.clip_coef.item())
        optimizer.fused_backward(loss, rates[-1])
        losses.append(loss.item())
    final = parameters(model)
    save_file(final, os.path.join(out, "lomo.safetensors"))
    write_json(
        os.path.join(out, "lomo.json"),
        {
            **options,
            "steps": STEPS,
            "weights": "lomo.safetensors",
            "rates": rates,
            "losses": losses,
            "grad_norms": norms,
            "coefficients": coefficients,
            "moved": {n: distance(weights[n], w) for n, w in final.items()},
        },
    )
    print(
        f"{'lomo':22} loss {losses[0]:.3f} -> {losses[-1]:.3f}  "
        f"norms {norms[0]:.2f} to {norms[-1]:.2f}"
    )


class OneParameter(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight.clone())


class HeldParameter:
    """What Lomo's update touches of a parameter, with a gradient that is wider than the weight."""

    requires_grad = True

    def __init__(self, weight, gradient):
        self.data, self.grad = weight.clone(), gradient


def lomo_update(weight, gradient, case):
    """The new weight by lomo-optim's own code. A bf16 gradient comes out of a real backward pass of
    sum(weight * gradient); an f32 one is put where that backward would have left it."""
    module = OneParameter(weight)
    limit = 1.0 if case["coefficient"] is not None else None
    optimizer = lomo_optim.Lomo(
        module,
        lr=case["lr"],
        clip_grad_norm=limit,
        clip_grad_value=case["clip_value"] or None,
        weight_decay=case["weight_decay"],
    )
    if limit:
        optimizer.clip_coef = torch.tensor(case["coefficient"], dtype=torch.float32)
    if gradient.dtype is torch.bfloat16:
        optimizer.fused_backward((module.weight * gradient).sum(), case["lr"])
        return module.weight.detach()
    held = HeldParameter(weight, gradient.clone())
    optimizer.model = type("Model", (), {"named_parameters": lambda self: [("weight", held)]})()
    optimizer.lr = case["lr"]
    optimizer.grad_func(0)
    return held.data


def bf16_inputs(count, gradient_dtype, case, generator):
    """Ordinary values, and every 16th pair extreme: zeros of both signs, subnormals, huge values.
    Every 8th pair cancels but for rounding: there one fused operation and two differ in every bit.
    """
    weight = 0.05 * torch.randn(count, generator=generator)
    gradient = torch.randn(count, generator=generator) * 10.0 ** torch.randint(
        -4, 2, (count,), generator=generator
    )
    extreme = torch.tensor(
        [
            0.0,
            -0.0,
            1e-40,
            -1e-40,
            1.2e-38,
            1e-20,
            -1e-20,
            1.0,
            -1.0,
            256.0,
            -1e4,
            1e10,
            -1e20,
            3e38,
            -3e38,
        ]
    )
    pairs = torch.cartesian_prod(extreme, extreme)
    places = torch.arange(0, count, 16)[: len(pairs)]
    weight[places], gradient[places] = pairs[: len(places), 0], pairs[: len(places), 1]
    # Weights whose update lands next to the middle between two bf16 values: rounding is seen there.
    weight[1::4] = weight[1::4].sign() * (1.0 + torch.rand(weight[1::4].shape, generator=generator))
    gradient[1::4] *= 0.1
    weight = weight.bfloat16()
    factor = case["lr"] * (case["coefficient"] or 1.0)
    if factor:
        gradient[3::8] = weight[3::8].float() * (1.0 - case["lr"] * case["weight_decay"]) / factor
    return weight, gradient.to(gradient_dtype)


def record_lomo_bf16(data, generator):
    """The bf16 update alone, bit for bit.

    torch's add_(g, alpha=-lr) was measured to be one fused multiply-add, fma(-lr, g, x), in its
    vector loop and in its scalar tail, with AVX2 and AVX-512, on one thread and on two; only its
    build for CPUs without FMA rounds twice. -lr is rounded to f32 once; the decay factor
    1 - lr * weight_decay is a double until it is rounded to f32. check_fused() asserts the fused
    operation on the recording machine.
    """
    check_fused(generator)
    out = os.path.join(data, "lomo-bf16")
    os.makedirs(out)
    cases = [
        ("plain", torch.bfloat16, 2048, 0.03, 0.0, 0.0, None),
        ("plain-f32", torch.float32, 2048, 0.03, 0.0, 0.0, None),
        ("coefficient", torch.bfloat16, 2048, 0.3, 0.0, 0.0, 0.37959465),
        ("coefficient-f32", torch.float32, 4096, 0.0371, 0.0, 0.0, 0.1234567),
        ("decay-f32", torch.float32, 2048, 0.03, 0.1, 0.0, 0.71),
        ("value-clip", torch.bfloat16, 2048, 0.3, 0.0, 0.5, None),
        ("value-clip-f32", torch.float32, 2048, 0.3, 0.01, 0.2, 0.9),
        ("tail-f32", torch.float32, 1037, 0.05, 0.0, 0.0, 0.5),
        ("zero-lr", torch.bfloat16, 1024, 0.0, 0.0, 0.0, 1.0),
    ]
    entries, tensors = [], {}
    for name, dtype, count, lr, decay, clip_value, coefficient in cases:
        case = {
            "name": name,
            "lr": lr,
            "weight_decay": decay,
            "clip_value": clip_value,
            "coefficient": coefficient,
        }
        weight, gradient = bf16_inputs(count, dtype, case, generator)
        result = lomo_update(weight, gradient, case)
        assert result.dtype is torch.bfloat16
        entries.append(case)
        tensors.update(
            {f"{name}.weight": weight, f"{name}.gradient": gradient, f"{name}.result": result}
        )
        changed = (result != weight).sum().item()
        print(f"lomo-bf16 {name:18} {changed} of {count} changed", flush=True)
    write_json(os.path.join(out, "cases.json"), {"cases": entries})
    save_file(tensors, os.path.join(out, "cases.safetensors"))


def check_fused(generator):
    x, g = torch.randn(4109, generator=generator), torch.randn(4109, generator=generator)
    alpha = torch.tensor(-0.0371, dtype=torch.float32)
    fused = (x.double() + g.double() * alpha.double()).float()
    apart = x + g * alpha
    added = x.clone().add_(g, alpha=-0.0371)
    assert torch.equal(added, fused) and not torch.equal(added, apart), "no fused multiply-add here"


def record_versions(data):
    names = ("torch", "transformers", "safetensors", "lomo-optim", "adam-mini", "numpy")
    write_json(
        os.path.join(data, "versions.json"),
        {
            "python": platform.python_version(),
            **{name: version(name) for name in names},
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        },
    )


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", default=os.path.join(here, "data"), help="folder to write (replaced)"
    )
    parser.add_argument("--only", help="one model of folders.py, or lomo-bf16")
    parser.add_argument("--runs", nargs="+", help="only these of EXTRA, beside what is there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.runs:
        record_extra(options.data, options.runs)
        return
    os.makedirs(options.data, exist_ok=True)
    for number, name in enumerate([m.name for m in folders.MODELS] + ["lomo-bf16"]):
        if options.only not in (None, name):
            continue
        shutil.rmtree(os.path.join(options.data, name), ignore_errors=True)
        generator = torch.Generator().manual_seed(2024 + number)
        if name == "lomo-bf16":
            record_lomo_bf16(options.data, generator)
        else:
            record_model(options.data, folders.MODELS[number], generator)
    record_versions(options.data)


if __name__ == "__main__":
    main()
