# SPDX-License-Identifier: Apache-2.0
"""The tiny random models of the parity tests, as Hugging Face folders.

Owns the list of models (MODELS), their config.json in both spellings that are met in the wild,
their random weights and their token sequences. Knows nothing of training: record.py does that.

Every number that a family may get wrong acts here: norms are not 1, biases are not 0, windows are
shorter than the sequences, and the scaled ropes have an original length that the sequences exceed.
"""

import json
import os
from dataclasses import dataclass, field

import torch
from safetensors.torch import save_file


@dataclass
class Model:
    """One folder. `config` holds what differs from the defaults of base_config()."""

    name: str
    family: str  # llama, mistral, qwen2, qwen3
    spelling: str  # of config.json: old, old-type or new, see write_config()
    config: dict
    rope: dict = field(default_factory=lambda: {"rope_theta": 10000.0})
    shards: int = 1
    lengths: tuple = (7, 23, 40)  # of the sequences whose logits are recorded
    rows: tuple = (24, 17, 31, 9)  # of the batch that is trained on
    sgd_lr: float = 0.12  # where the loss falls by more than 1 nat and nothing swings


# Two layers of about 10,000 parameters: for what differs in config.json alone.
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 96,
}
LONG = {"lengths": (9, 33, 60), "rows": (44, 17, 52, 9), "sgd_lr": 0.2}

MODELS = [
    Model("llama", "llama", "old", {"num_hidden_layers": 3}, shards=2),
    Model(
        "llama-tied",
        "llama",
        "new",
        {
            "tie_word_embeddings": True,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "vocab_size": 112,
            "rms_norm_eps": 1e-6,
        },
        {"rope_theta": 500000.0},
        sgd_lr=0.06,
    ),
    Model(
        "llama-rope-llama3",
        "llama",
        "old",
        {**SMALL, "max_position_embeddings": 128},
        {
            "rope_theta": 300.0,
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        **LONG,
    ),
    Model(
        "llama-rope-linear",
        "llama",
        "old-type",
        {**SMALL, "max_position_embeddings": 128},
        {"rope_theta": 10000.0, "rope_type": "linear", "factor": 4.0},
        **LONG,
    ),
    Model(
        "llama-rope-yarn",
        "llama",
        "new",
        {**SMALL, "max_position_embeddings": 128},
        {
            "rope_theta": 200.0,
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        **LONG,
    ),
    Model(
        "llama-rope-yarn-set",
        "llama",
        "old",
        {**SMALL, "max_position_embeddings": 128},
        {
            "rope_theta": 200.0,
            "rope_type": "yarn",
            "factor": 2.0,
            "attention_factor": 1.3,
            "beta_fast": 4.0,
            "beta_slow": 0.5,
            "original_max_position_embeddings": 64,
        },
        **LONG,
    ),
    Model(
        "llama-rope-dynamic",
        "llama",
        "new",
        {**SMALL, "max_position_embeddings": 64},
        {"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 2.0},
        **LONG,
    ),
    Model("mistral", "mistral", "old", {"sliding_window": 8, "vocab_size": 104}),
    Model(
        "qwen2",
        "qwen2",
        "old",
        {
            "tie_word_embeddings": True,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "use_sliding_window": False,
            "sliding_window": 8,
            "max_window_layers": 0,
        },
        {"rope_theta": 100.0},
        sgd_lr=0.015,
    ),
    Model(
        "qwen2-window",
        "qwen2",
        "new",
        {
            **SMALL,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 1,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        },
        {"rope_theta": 100.0},
        sgd_lr=0.2,
    ),
    Model("qwen3", "qwen3", "new", {"head_dim": 16, "vocab_size": 120}, {"rope_theta": 1000000.0}),
    Model(
        "qwen3-window",
        "qwen3",
        "old",
        {
            **SMALL,
            "head_dim": 12,
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
        },
        {"rope_theta": 1000000.0},
        sgd_lr=0.015,
    ),
]

ARCHITECTURE = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def base_config(family):
    config = {
        "architectures": [ARCHITECTURE[family]],
        "model_type": family,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 48,
        "initializer_range": 0.02,
        "intermediate_size": 80,
        "max_position_embeddings": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": 128,
        "attention_dropout": 0.0,
    }
    if family in ("llama", "qwen3"):
        config["attention_bias"] = False
    if family == "llama":
        config.update({"mlp_bias": False, "pretraining_tp": 1})
    return config


def write_config(model, folder):
    """The same facts in one of three spellings: transformers before 5 wrote rope_theta,
    rope_scaling and torch_dtype (and, long ago, `type` for `rope_type`), since then
    rope_parameters and dtype."""
    config = {**base_config(model.family), **model.config}
    rope = dict(model.rope)
    if model.spelling == "new":
        config["dtype"] = "float32"
        config["rope_parameters"] = {"rope_type": "default", **rope}
        config["transformers_version"] = "5.0.0"
    else:
        config["torch_dtype"] = "float32"
        config["rope_theta"] = rope.pop("rope_theta")
        if model.spelling == "old-type":
            rope = {("type" if key == "rope_type" else key): value for key, value in rope.items()}
        config["rope_scaling"] = rope or None
        config["transformers_version"] = "4.44.0"
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as out:
        json.dump(config, out, indent=2, sort_keys=True)
        out.write("\n")


def shapes(model):
    """Tensor names and shapes in the order of the model."""
    c = {**base_config(model.family), **model.config}
    hidden, ffn, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    head_dim = c.get("head_dim") or hidden // c["num_attention_heads"]
    q, kv = c["num_attention_heads"] * head_dim, c["num_key_value_heads"] * head_dim
    out = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(c["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        out[p + "input_layernorm.weight"] = (hidden,)
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            out[p + f"self_attn.{name}_proj.weight"] = (rows, hidden)
            if model.family == "qwen2":
                out[p + f"self_attn.{name}_proj.bias"] = (rows,)
        out[p + "self_attn.o_proj.weight"] = (hidden, q)
        if model.family == "qwen3":
            out[p + "self_attn.q_norm.weight"] = (head_dim,)
            out[p + "self_attn.k_norm.weight"] = (head_dim,)
        out[p + "post_attention_layernorm.weight"] = (hidden,)
        out[p + "mlp.gate_proj.weight"] = out[p + "mlp.up_proj.weight"] = (ffn, hidden)
        out[p + "mlp.down_proj.weight"] = (hidden, ffn)
    out["model.norm.weight"] = (hidden,)
    if not c["tie_word_embeddings"]:
        out["lm_head.weight"] = (vocab, hidden)
    return out


def scale(model, name):
    """Norms divide by the length of what enters them: small embeddings would make the training of
    twenty steps so steep that every rounding error grows, and nothing could be compared."""
    if "embed" in name:
        return 0.2 if model.config.get("tie_word_embeddings") else 0.7
    return 0.15 if "head" in name else 0.1


def random_weights(model, generator):
    weights = {}
    for name, shape in shapes(model).items():
        noise = torch.randn(shape, generator=generator)
        if "norm" in name:
            weights[name] = 1.0 + 0.2 * noise
        elif name.endswith(".bias"):
            weights[name] = 0.3 * noise
        else:
            weights[name] = scale(model, name) * noise
    return weights


def write_folder(model, folder, generator):
    os.makedirs(folder, exist_ok=True)
    write_config(model, folder)
    weights = random_weights(model, generator)
    meta = {"format": "pt"}
    if model.shards == 1:
        save_file(weights, os.path.join(folder, "model.safetensors"), metadata=meta)
        return
    names = list(weights)
    size = sum(4 * w.numel() for w in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": {}}
    for shard in range(model.shards):
        part = names[shard * len(names) // model.shards : (shard + 1) * len(names) // model.shards]
        file = f"model-{shard + 1:05d}-of-{model.shards:05d}.safetensors"
        save_file({name: weights[name] for name in part}, os.path.join(folder, file), metadata=meta)
        index["weight_map"].update({name: file for name in part})
    with open(os.path.join(folder, "model.safetensors.index.json"), "w", encoding="utf-8") as out:
        json.dump(index, out, indent=2, sort_keys=True)
        out.write("\n")


def random_ids(model, length, generator):
    vocab = {**base_config(model.family), **model.config}["vocab_size"]
    return torch.randint(3, vocab, (length,), generator=generator).tolist()


def write_batch(model, path, generator):
    """The batch that is trained on: rows of different lengths, the first third of two of them
    masked."""
    rows = []
    for number, length in enumerate(model.rows):
        ids = random_ids(model, length, generator)
        masked = length // 3 if number % 2 else 0
        rows.append({"input_ids": ids, "labels": [-100] * masked + ids[masked:]})
    with open(path, "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row) + "\n")
    return rows
