"""The networks that are compared, and the examples that they see.

A network is a dict, which goes to the peers as JSON. gradmark has no classes for Gaussian numbers: there the loss is a linear
probe, v . h of the last hidden layer or state, and there is no output layer, on all sides. The digits have softmax
cross-entropy and an output layer.
"""

from pathlib import Path

DIGITS = Path(__file__).parents[2] / "src" / "data" / "digits" / "digits.bin"
CLASSES = 10
PIXELS = 64
ROWS = 8
TEST_EXAMPLES = 360
LEARNING_RATE = 1e-4

# Sigmoid layers take their gradient down by a factor of four or more, and 100 of them take it below the smallest normal
# number of f32, with which a processor takes a hundred times as long. Four times the weights keep it above.
INITIAL = {"sigmoid": ("lecun", 4.0), "tanh": ("lecun", 1.0), "relu": ("he", 1.0)}


def plain(activation, depth, width, **keys):
    """A multilayer perceptron on 128 examples of 784 Gaussian numbers, unless `keys` say otherwise."""
    network = {"kind": "plain", "activation": activation, "depth": depth, "width": width, "norm": "none"}
    return network | {"data": "gaussian", "inputs": 784, "batch": 128} | keys


def recurrent(cell, width=128, **keys):
    """A recurrent layer over 28 time steps of 28 numbers."""
    network = {"kind": "recurrent", "activation": "tanh", "depth": 1, "width": width, "norm": "none", "cell": cell}
    return network | {"data": "gaussian", "time_steps": 28, "inputs": 28, "batch": 128} | keys


def timed_networks():
    """What the table has rows of, by name."""
    networks = {}
    for depth, width in [(20, 128), (100, 64), (20, 512)]:
        size = f"{depth}x{width}"
        for activation in INITIAL:
            networks[f"{activation}/{size}"] = plain(activation, depth, width)
        networks[f"batch_norm/{size}"] = plain("relu", depth, width, norm="batch")
        networks[f"layer_norm/{size}"] = plain("relu", depth, width, norm="layer")
        networks[f"residual/{size}"] = plain("relu", depth, width, norm="batch", kind="residual")
    for activation in ["relu", "sigmoid"]:
        digits = {"data": "digits", "inputs": PIXELS, "batch": 32}
        networks[f"digits_{activation}/8x64"] = plain(activation, 8, 64, **digits)
    for cell in ["rnn", "lstm", "gru"]:
        networks[f"{cell}/28x128"] = recurrent(cell)
    return networks


def checked_networks():
    """Of every family a network on all digits at once, whose order then does not matter."""
    digits = {"data": "digits", "inputs": PIXELS, "batch": "full"}
    networks = {activation: plain(activation, 4, 32, **digits) for activation in INITIAL}
    networks["batch_norm"] = plain("relu", 4, 32, norm="batch", **digits)
    networks["layer_norm"] = plain("relu", 4, 32, norm="layer", **digits)
    networks["residual"] = plain("relu", 4, 32, norm="batch", kind="residual", **digits)
    # Deep enough for the form that JAX has of deep ones.
    networks["residual_deep"] = plain("relu", 24, 32, norm="batch", kind="residual", **digits)
    for cell in ["rnn", "lstm", "gru"]:
        networks[cell] = recurrent(cell, 16, **digits | {"time_steps": ROWS, "inputs": PIXELS // ROWS})
    return networks


def config(network, implementation, throughput):
    """gradmark's config of a network, as TOML. Nothing is trained but in the timing samples: there every step has an
    update."""
    weight_init, weight_scale = INITIAL[network["activation"]]
    sections = {
        "experiment": {"name": "peers"},
        "data": {"set": network["data"]},
        "network": {key: network[key] for key in ["kind", "activation", "depth", "width", "norm"]},
        "training": {"learning_rate": LEARNING_RATE, "batch_size": network["batch"], "steps": 0},
        "probe": {"activations": False, "dump": [0]},
        "throughput": throughput,
    }
    sections["network"] |= {"weight_init": weight_init, "weight_scale": weight_scale}
    if network["kind"] == "recurrent":
        sections["network"] |= {"cell": network["cell"], "implementation": implementation}
    if network["data"] == "gaussian":
        sections["training"]["loss"] = "linear_probe"
        sections["data"]["features"] = network["inputs"]
        if "time_steps" in network:
            sections["data"]["sequence_length"] = network["time_steps"]
    return "".join(toml(name, keys) for name, keys in sections.items())


def toml(section, keys):
    text = {True: "true", False: "false"}
    quoted = lambda value: f'"{value}"' if isinstance(value, str) else text[value] if isinstance(value, bool) else value
    return f"[{section}]\n" + "".join(f"{key} = {quoted(value)}\n" for key, value in keys.items())


def examples(network):
    """The one batch of a peer, as numpy arrays: inputs `[batch, inputs]`, of sequences `[time steps, batch, inputs]`, and what
    the loss is taken with: classes `[batch]`, or the direction `[width]` of a linear probe.

    gradmark cuts its batches of the digits from the training split and makes the classes one-hot at every step; the peers
    are spared that."""
    import numpy

    if network["data"] == "gaussian":
        stream = numpy.random.default_rng(1)
        shape = [network["batch"], network["inputs"]]
        inputs = stream.standard_normal([network["time_steps"], *shape] if "time_steps" in network else shape)
        return inputs.astype(numpy.float32), stream.standard_normal(network["width"]).astype(numpy.float32)
    inputs, classes = digits(numpy)
    count = len(classes) if network["batch"] == "full" else network["batch"]
    inputs, classes = inputs[:count], classes[:count]
    if "time_steps" in network:
        inputs = numpy.ascontiguousarray(inputs.reshape(count, network["time_steps"], -1).swapaxes(0, 1))
    return inputs, classes


def digits(numpy):
    """The training split, pixels from 0 to 1: of each class evenly spaced examples are held out, by largest remainder, as in
    src/data/digits.rs."""
    records = numpy.fromfile(DIGITS, numpy.uint8).reshape(-1, PIXELS + 1)
    classes = records[:, PIXELS]
    members = [numpy.flatnonzero(classes == code) for code in range(CLASSES)]
    shares = [len(member) * TEST_EXAMPLES for member in members]
    counts = [share // len(records) for share in shares]
    by_remainder = sorted(range(CLASSES), key=lambda code: -(shares[code] % len(records)))
    for code in by_remainder[: TEST_EXAMPLES - sum(counts)]:
        counts[code] += 1
    trained = numpy.ones(len(records), bool)
    for member, count in zip(members, counts):
        places = numpy.arange(len(member))
        trained[member[(places + 1) * count // len(member) > places * count // len(member)]] = False
    return records[trained, :PIXELS].astype(numpy.float32) / 16, classes[trained].astype(numpy.int64)
