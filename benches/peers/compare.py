#!/usr/bin/env python3
"""The time of a training step with the norms of all gradients: gradmark's, PyTorch's and JAX's.

The same networks everywhere, from the same weights, in f32, with gradient descent, and at every step the norm of the gradient
of every parameter. gradmark measures more at such a step (largest elements, zeros, and norms of weights and updates). All
take turns, round after round, so that a disturbance of the machine meets all of them; the peers are child processes that wait
meanwhile.

    cargo build --release
    python benches/peers/compare.py --check
    python benches/peers/compare.py

needs PyTorch, JAX and Linux. Nothing else of the project does.
"""

import argparse
import csv
import fnmatch
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import networks

HERE = Path(__file__).parent
PEERS = {
    "pytorch_eager": ["pytorch.py", "eager"],
    "pytorch_compile": ["pytorch.py", "compile"],
    "pytorch_cuda_graph": ["pytorch.py", "cuda_graph"],
    "jax": ["jax_peer.py"],
}
OWN = {"gradmark": "own", "burn": "stock"}
# Threads that have just worked may spin for a while.
SETTLING_S = 0.02
# What others may take of one processor while someone is measured, and how often a measurement is repeated for that.
OTHERS_SHARE = 0.1
ATTEMPTS = 5
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CHECK_TOLERANCE = 1e-3


def main():
    arguments = parse()
    if arguments.markdown:
        return print_markdown(read(arguments.out))
    limit_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as directory:
        gradmark = Gradmark(arguments, Path(directory))
        peers = {name: Peer(name, arguments) for name in arguments.peers}
        if arguments.check:
            sys.exit(check(gradmark, peers))
        chosen = chosen_networks(arguments)
        counts = {name: build(name, network, gradmark, peers) for name, network in chosen.items()}
        times = measure(chosen, gradmark, peers, arguments)
        environment = gradmark.environment() | versions(peers)
    rows = [row for name in chosen for row in rows_of(name, chosen[name], counts[name], times, arguments, environment)]
    print_table(rows)
    write(arguments.out, kept(arguments.out, chosen) + rows)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare losses and norms with gradmark's, and time nothing")
    parser.add_argument("--markdown", action="store_true", help="print the table of --out as Markdown, and time nothing")
    parser.add_argument("--gradmark", default="target/release/gradmark", help="the program (%(default)s)")
    parser.add_argument("--device", default="flex", help="gradmark's device (%(default)s)")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["pytorch_eager", "pytorch_compile", "jax"])
    parser.add_argument("--only", nargs="+", default=["*"], help="networks to measure, as patterns; the rows of others stay")
    parser.add_argument("--rounds", type=int, default=9, help="times that each is measured (%(default)s)")
    parser.add_argument("--samples", type=int, default=3, help="samples a measurement, whose median counts (%(default)s)")
    parser.add_argument("--sample-ms", type=float, default=60, help="least length of a sample (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads, and processors, of each (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/peers.csv"), help="(%(default)s)")
    return parser.parse_args()


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def limit_threads(threads):
    """For this process and its children. JAX takes as many threads as it may run on processors."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    for name in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"]:
        os.environ[name] = str(threads)


def chosen_networks(arguments):
    found = {
        name: network
        for name, network in networks.timed_networks().items()
        if any(fnmatch.fnmatch(name, pattern) for pattern in arguments.only)
    }
    return found or fail(f"--only names no network; there are {', '.join(networks.timed_networks())}")


class Peer:
    """A child process, which answers a line with a line."""

    def __init__(self, name, arguments):
        self.name = name
        script, *mode = PEERS[name]
        command = [sys.executable, HERE / script, *mode, str(arguments.threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = self.answer()["versions"]

    def ask(self, do, name, **keys):
        self.process.stdin.write(json.dumps({"do": do, "name": name} | keys) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else fail(f"{self.name} has ended; see what it says above")

    def step_ms(self, name, norms, arguments):
        """The median of the samples, each of as many whole steps as its length takes."""
        elapsed_ms = lambda steps: self.ask("time", name, norms=norms, steps=steps)["elapsed_ms"]
        # The first call compiles.
        elapsed_ms(1)
        steps = max(1, round(arguments.sample_ms / (elapsed_ms(2) / 2)))
        return statistics.median(elapsed_ms(steps) / steps for _ in range(arguments.samples))

    def cpu_s(self):
        """The processor time of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


class Gradmark:
    """The program, with configs and a place for its results."""

    def __init__(self, arguments, directory):
        self.arguments, self.directory = arguments, directory

    def run(self, network, implementation, throughput):
        """Runs a network and returns the directory of the run."""
        config = self.directory / "peers.toml"
        config.write_text(networks.config(network, implementation, throughput))
        command = [self.arguments.gradmark, "run", config, "--device", self.arguments.device, "--quiet", "--force"]
        try:
            subprocess.run([*command, "--out", self.directory], check=True, stdout=subprocess.DEVNULL)
        except FileNotFoundError:
            fail(f"{self.arguments.gradmark} is not there: `cargo build --release`, or name it with --gradmark")
        except subprocess.CalledProcessError as error:
            fail(f"gradmark ended with exit code {error.returncode}")
        manifest = max((self.directory / "peers").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
        return manifest.parent

    def initial(self, network):
        """The run of a network that is only measured, with its dumped weights."""
        return self.run(network, "own", {"samples": 0})

    def step_ms(self, network, implementation):
        """The median of the samples with the norms at every step, and without a probe."""
        samples = {"samples": self.arguments.samples, "sample_ms": self.arguments.sample_ms, "cold_steps": 1}
        rows = read(self.run(network, implementation, samples) / "throughput.csv")
        steady = [row for row in rows if row["phase"] == "steady"]
        of = lambda load: [float(row["elapsed_ms"]) / int(row["steps"]) for row in steady if row["probe"] == load]
        return {True: statistics.median(of("parameters")), False: statistics.median(of("off"))}

    def environment(self):
        """As the manifest of the last run has it."""
        manifest = max((self.directory / "peers").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
        found = json.loads(manifest.read_text())["environment"]
        keys = {"cpu": "cpu", "cores": "cores", "gradmark": "gradmark_version", "burn": "burn_version", "rustc": "rustc"}
        return {name: found[key] for name, key in keys.items()}


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def versions(peers):
    of_peers = {key: value for peer in peers.values() for key, value in peer.versions.items()}
    return {name: of_peers.get(name, "") for name in ["torch", "jax"]} | {"python": platform.python_version()}


def build(name, network, gradmark, peers):
    """Builds a network everywhere and returns the numbers that each trains."""
    run = gradmark.initial(network)
    counts = {"gradmark": sum(int(row["element_count"]) for row in read(run / "gradients.csv"))}
    for peer in peers.values():
        print(f"building {name} in {peer.name}", file=sys.stderr)
        answer = peer.ask("build", name, network=network, weights=str(run / "tensors_step_0.safetensors"))
        counts[peer.name] = answer["parameters"]
        for norms in [False, True]:
            peer.ask("time", name, norms=norms, steps=2)
    return counts


def measure(chosen, gradmark, peers, arguments):
    """`{(network, who, with norms): [ms a step, a round each]}`"""
    times, disturbed = {}, 0
    for turn in range(arguments.rounds):
        print(f"round {turn + 1} of {arguments.rounds}", file=sys.stderr)
        for name, network in chosen.items():
            for who in in_turn(members(network, peers), turn):
                found, is_disturbed = undisturbed(lambda: measure_one(name, network, who, gradmark, peers, arguments), peers, who)
                disturbed += is_disturbed
                for norms, step_ms in found.items():
                    times.setdefault((name, who, norms), []).append(step_ms)
    if disturbed:
        print(f"warning: {disturbed} measurements shared the processors with other processes, {ATTEMPTS} times", file=sys.stderr)
    return times


def measure_one(name, network, who, gradmark, peers, arguments):
    if who in OWN:
        return gradmark.step_ms(network, OWN[who])
    return {norms: peers[who].step_ms(name, norms, arguments) for norms in [True, False]}


def undisturbed(measurement, peers, who):
    """Repeats a measurement during which others were at work: waiting peers, other programs, and on a virtual machine its
    neighbours. Returns what it found and whether even the last attempt was disturbed. It does not look at the times."""
    for _ in range(ATTEMPTS):
        time.sleep(SETTLING_S)
        start, before = time.monotonic(), others_s(peers, who)
        found = measurement()
        share = (others_s(peers, who) - before) / (time.monotonic() - start)
        if share <= OTHERS_SHARE:
            return found, False
    return found, True


def others_s(peers, who):
    """Processor time of everything but this process and who is measured, and time that the machine was not given."""
    # user, nice, system, idle, iowait, irq, softirq, steal
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return (sum(ticks) - ticks[3] - ticks[4]) / TICKS_PER_S - own - (peers[who].cpu_s() if who in peers else 0.0)


def members(network, peers):
    """Who has the network: Burn's own layers stand beside gradmark's only where they are recurrent."""
    return ["gradmark", *(["burn"] if network["kind"] == "recurrent" else []), *peers]


def in_turn(names, turn):
    """None of them always follows the same one."""
    first = turn % len(names)
    return names[first:] + names[:first]


def rows_of(name, network, counts, times, arguments, environment):
    own = times[name, "gradmark", True]
    for who in [who for who in [*OWN, *PEERS] if (name, who, True) in times]:
        found, unmeasured = times[name, who, True], times[name, who, False]
        low, high = interval(found, own)
        by_round = [a / b for a, b in zip(found, own)]
        yield {
            "network": name,
            "implementation": who,
            "batch": network["batch"],
            "inputs": network["inputs"],
            # Burn's layers are not counted: they have biases that are not used.
            "parameters": counts.get(who, ""),
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "step_time_ms_p50": round(statistics.median(found), 4),
            "step_time_ms_min": round(min(found), 4),
            "step_time_ms_max": round(max(found), 4),
            # Without the norms.
            "unmeasured_step_time_ms_p50": round(statistics.median(unmeasured), 4),
            "ratio_to_gradmark": round(statistics.median(found) / statistics.median(own), 3),
            "ratio_low": round(low, 3),
            "ratio_high": round(high, 3),
            # Within a round.
            "ratio_min": round(min(by_round), 3),
            "ratio_max": round(max(by_round), 3),
            **environment,
        }


def interval(found, own, resamples=2000):
    """The bootstrap 95 % interval of the ratio of the medians. Rounds are drawn, which keeps together what one disturbance has
    met."""
    stream, rounds = random.Random(1), list(zip(found, own))
    ratios = []
    for _ in range(resamples):
        drawn = stream.choices(rounds, k=len(rounds))
        ratios.append(statistics.median(a for a, _ in drawn) / statistics.median(b for _, b in drawn))
    ratios.sort()
    return ratios[round(0.025 * (resamples - 1))], ratios[round(0.975 * (resamples - 1))]


def print_table(rows):
    print(f"{'network':24}{'':20}{'step ms':>10}{'min':>10}{'max':>10}{'no norms':>10}{'by gradmark':>13}{'95 % interval':>18}")
    for row in rows:
        times = "".join(f"{row['step_time_ms_' + name]:10.3f}" for name in ["p50", "min", "max"])
        ratio = f"{row['ratio_to_gradmark']:13.2f}{row['ratio_low']:11.2f} -{row['ratio_high']:5.2f}"
        print(f"{row['network']:24}{row['implementation']:20}{times}{row['unmeasured_step_time_ms_p50']:10.3f}{ratio}")


def print_markdown(rows):
    """A line a network: milliseconds of gradmark, and how many times as long the others take."""
    others = [who for who in [*OWN, *PEERS][1:] if any(row["implementation"] == who for row in rows)]
    print(f"| network | gradmark, ms | {' | '.join(others)} |\n| --- | --- |{' --- |' * len(others)}")
    for name in dict.fromkeys(row["network"] for row in rows):
        of = {row["implementation"]: row for row in rows if row["network"] == name}
        own = "{step_time_ms_p50} ({step_time_ms_min}-{step_time_ms_max})".format_map(of["gradmark"])
        ratios = ["{ratio_to_gradmark} ({ratio_low}-{ratio_high})".format_map(of[who]) if who in of else "" for who in others]
        print(f"| {name} | {own} | {' | '.join(ratios)} |")


def kept(path, chosen):
    """The rows of networks that were not measured this time."""
    return [row for row in read(path) if row["network"] not in chosen] if path.exists() else []


def write(path, rows):
    order = list(networks.timed_networks())
    rows = sorted(rows, key=lambda row: order.index(row["network"]) if row["network"] in order else len(order))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def check(gradmark, peers):
    """Compares the loss and the norm of every gradient at the start, and the numbers of parameters. Returns the exit code."""
    worst = 0.0
    print(f"{'network':16}{'':20}{'parameters':>12}{'gradmark':>12}{'loss':>10}{'largest difference':>22}")
    for name, network in networks.checked_networks().items():
        run = gradmark.initial(network)
        rows = read(run / "gradients.csv")
        norms = {row["parameter"]: float(row["grad_l2"]) for row in rows}
        (loss,) = [float(row["loss"]) for row in read(run / "steps.csv") if row["phase"] == "train"]
        count = sum(int(row["element_count"]) for row in rows)
        for peer in peers.values():
            weights = str(run / "tensors_step_0.safetensors")
            parameters = peer.ask("build", name, network=network, weights=weights)["parameters"]
            found = peer.ask("norms", name)
            difference = largest_difference(loss, norms, found)
            worst = max(worst, difference)
            print(f"{name:16}{peer.name:20}{parameters:12}{count:12}{found['loss']:10.5f}{difference:22.1e}")
    print("PyTorch's recurrent layers have a second bias a gate, which is 0 here.")
    agree = worst <= CHECK_TOLERANCE
    print(f"{'All agree' if agree else 'Not all agree'} to {CHECK_TOLERANCE:g}.")
    return 0 if agree else 1


def largest_difference(loss, norms, found):
    """Relative to the norm, and at least to a hundredth of the layer's largest: the gradient of a bias before batch norm is 0
    but for rounding."""
    if set(norms) != set(found["norms"]):
        return float("inf")
    layer = lambda name: name.split(".")[0] + name.split(".")[1] if name.startswith("hidden") else name.split(".")[0]
    largest = {}
    for name, norm in norms.items():
        largest[layer(name)] = max(norm, largest.get(layer(name), 0.0))
    of_norms = [abs(found["norms"][name] - norm) / max(norm, largest[layer(name)] / 100) for name, norm in norms.items()]
    return max(abs(found["loss"] - loss) / loss, *of_norms)


if __name__ == "__main__":
    main()
