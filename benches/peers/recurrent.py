#!/usr/bin/env python3
"""The time of a training step of one recurrent layer: gradmark's, Burn's and PyTorch's.

The same step everywhere: RNN, LSTM or GRU of 128 units over 28 time steps of 28 numbers, batch 128; the loss is a weighted
sum of the last hidden states; gradient descent. The three take turns, round after round, so that a disturbance of the
machine meets all of them.

    cargo build --release
    python benches/peers/recurrent.py --gradmark target/release/gradmark

needs PyTorch. Nothing else of the project does.
"""

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CELLS = ["rnn", "lstm", "gru"]
TIME_STEPS, INPUTS, HIDDEN, BATCH = 28, 28, 128, 128

CONFIG = f"""
[experiment]
name = "peers"

[data]
set = "gaussian"
features = {INPUTS}
sequence_length = {TIME_STEPS}

[network]
kind = "recurrent"
cell = "lstm"
depth = 1
width = {HIDDEN}
activation = "tanh"
weight_init = "burn"
recurrent_init = "burn"

[training]
loss = "linear_probe"
learning_rate = 1e-4
batch_size = {BATCH}
steps = 0

[probe]
parameters = false
activations = false
"""


def main():
    arguments = parse()
    torch = import_torch()
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    times = {(cell, who): [] for cell in CELLS for who in ["own", "stock", "pytorch"]}
    with tempfile.TemporaryDirectory() as directory:
        gradmark = Gradmark(arguments, Path(directory))
        for turn in range(arguments.rounds):
            print(f"round {turn + 1} of {arguments.rounds}", file=sys.stderr)
            for cell in CELLS:
                for who in ["own", "stock"]:
                    times[cell, who].append(gradmark.step_ms(cell, who))
                times[cell, "pytorch"].append(torch_step_ms(torch, cell, arguments))
        environment = gradmark.environment() | {"torch": torch.__version__, "python": platform.python_version()}
    rows = [row(cell, who, times, arguments, environment) for cell, who in times]
    print_table(rows)
    write(arguments.out, rows)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gradmark", default="target/release/gradmark", help="the program (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="times that each is measured (%(default)s)")
    parser.add_argument("--samples", type=int, default=9, help="samples a measurement, whose median counts (%(default)s)")
    parser.add_argument("--sample-ms", type=float, default=100, help="least length of a sample (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/peers_recurrent.csv"), help="(%(default)s)")
    return parser.parse_args()


def import_torch():
    try:
        import torch
    except ImportError:
        fail("PyTorch is not installed: `pip install torch`, and run this with the same Python")
    return torch


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


class Gradmark:
    """The program, with a config and a place for its results."""

    def __init__(self, arguments, directory):
        self.directory = directory
        config = directory / "peers.toml"
        config.write_text(CONFIG)
        self.command = [arguments.gradmark, "run", config, "--device", "flex", "--quiet", "--force", "--out", directory]
        for key, value in [("samples", arguments.samples), ("sample_ms", arguments.sample_ms)]:
            self.command += ["--set", f"throughput.{key}={value}"]

    def step_ms(self, cell, implementation):
        """The median of the samples."""
        keys = ["--set", f"network.cell={cell}", "--set", f"network.implementation={implementation}"]
        try:
            subprocess.run([*self.command, *keys], check=True, stdout=subprocess.DEVNULL)
        except FileNotFoundError:
            fail(f"{self.command[0]} is not there: `cargo build --release`, or name it with --gradmark")
        except subprocess.CalledProcessError as error:
            fail(f"gradmark ended with exit code {error.returncode}")
        with open(self.directory / "peers" / "summary.csv", newline="") as file:
            (found,) = csv.DictReader(file)
        return float(found["step_time_ms_p50"])

    def environment(self):
        """As the manifest of the last run has it."""
        manifest = max((self.directory / "peers").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
        found = json.loads(manifest.read_text())["environment"]
        keys = {"cpu": "cpu", "cores": "cores", "gradmark": "gradmark_version", "burn": "burn_version", "rustc": "rustc"}
        return {name: found[key] for name, key in keys.items()}


def torch_step_ms(torch, cell, arguments):
    """The median of the samples, each of as many whole steps as its length takes."""
    step = torch_step(torch, cell)
    repeat(step, 3)
    steps = max(1, round(arguments.sample_ms / repeat(step, 10)))
    return statistics.median(repeat(step, steps) for _ in range(arguments.samples))


def torch_step(torch, cell):
    torch.manual_seed(1)
    layer = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](INPUTS, HIDDEN)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-4)
    inputs, direction = torch.randn(TIME_STEPS, BATCH, INPUTS), torch.randn(HIDDEN)

    def step():
        states, _ = layer(inputs)
        loss = (states[-1] @ direction).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def repeat(step, count):
    """The time of a step in milliseconds."""
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count * 1e3


def row(cell, who, times, arguments, environment):
    own = times[cell, "own"]
    found = times[cell, who]
    return {
        "cell": cell,
        "implementation": who,
        "time_steps": TIME_STEPS,
        "inputs": INPUTS,
        "hidden": HIDDEN,
        "batch": BATCH,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "step_time_ms_p50": round(statistics.median(found), 3),
        "step_time_ms_min": round(min(found), 3),
        "step_time_ms_max": round(max(found), 3),
        # Within a round, so that the ratio does not feel the machine's moods.
        "ratio_to_own_p50": round(statistics.median(a / b for a, b in zip(found, own)), 3),
        **environment,
    }


def print_table(rows):
    print(f"{'cell':6}{'layer':10}{'step ms, median':>18}{'min':>10}{'max':>10}{'by own':>10}")
    for row in rows:
        times = "".join(f"{row['step_time_ms_' + name]:10.2f}" for name in ["min", "max"])
        print(f"{row['cell']:6}{row['implementation']:10}{row['step_time_ms_p50']:18.2f}{times}{row['ratio_to_own_p50']:10.2f}")


def write(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
