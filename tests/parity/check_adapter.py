# SPDX-License-Identifier: Apache-2.0
"""Does PEFT load what a run with adapters has written, and compute the same?

    python tests/parity/check_adapter.py --model DIR --adapter RUN/model --data FILE [--tailrace P]

The data are pre-tokenised rows (input_ids, labels). Prints PEFT's mean loss in f32 and that of
`tailrace eval --adapter`; they may differ by 1e-5. Needs the packages of record_lora.py.
"""

import argparse
import json
import subprocess
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def loss_of_peft(options):
    base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, options.adapter).eval()
    total, targets = 0.0, 0
    with open(options.data, encoding="utf-8") as file, torch.no_grad():
        for line in file:
            row = json.loads(line)
            labels = torch.tensor(row["labels"])[1:]
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0][:-1]
            total += torch.nn.functional.cross_entropy(
                logits, labels, ignore_index=-100, reduction="sum"
            ).item()
            targets += int((labels != -100).sum())
    return total / targets


def loss_of_tailrace(options):
    command = [options.tailrace, "eval", "--device", "cpu", "--json"]
    for name in ("model", "adapter", "data"):
        command += ["--" + name, getattr(options, name)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["loss"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "adapter", "data"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--tailrace", default="build/tools/tailrace")
    options = parser.parse_args()
    theirs, ours = loss_of_peft(options), loss_of_tailrace(options)
    print(f"PEFT {theirs:.7f}, tailrace {ours:.7f}")
    sys.exit(0 if abs(theirs - ours) < 1e-5 else 1)


if __name__ == "__main__":
    main()
