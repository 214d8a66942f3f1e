#!/usr/bin/env python3
"""The training step in JAX, as a child process of compare.py: forward, backward, norms and update are one jitted function.

Layers are written out one by one, which is the faster form, but in deep residual networks: there they lie in one array each kind of
parameter, `layers.weight` `[layers, inputs, units]` and so on, which `lax.scan` goes through. XLA makes a step of 100 residual layers that are written out
many times as long, and takes minutes to compile it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy

import networks
import peer

ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "relu": jax.nn.relu}
NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.1
# Residual networks of more layers are scanned.
MOST_WRITTEN_OUT = 20


def main():
    peer.serve(Jitted, {"jax": jax.__version__})


class Jitted(peer.Trained):
    """Parameters are a list in the order of their names: a dict would be sorted at every step."""

    def __init__(self, network, weights):
        stacks = stacked(network, weights)
        self.names = sorted(stacks)
        self.parts = [stacks[name] for name in self.names]
        arrays = [numpy.stack([weights[part] for part in parts]) for parts in self.parts]
        self.parameters = [jnp.array(array if is_stack(name) else array[0]) for name, array in zip(self.names, arrays)]
        self.inputs, self.aim = (jnp.array(array) for array in networks.examples(network))
        shapes = dict(zip(self.names, (parameter.shape for parameter in self.parameters)))
        gammas = [name for name in self.names if name.endswith(".norm.gamma")]
        start = lambda name: (jnp.zeros(shapes[name]), jnp.ones(shapes[name]))
        has_running = network["norm"] == "batch"
        self.running = {name.removesuffix(".gamma"): start(name) for name in gammas if has_running}
        self.loss = functools.partial(loss, network, self.names)
        self.norms_of = functools.partial(norms_of, self.names)
        self.steps = {norms: jitted_step(self.loss, self.norms_of if norms else None) for norms in [False, True]}

    def parameter_count(self):
        return sum(parameter.size for parameter in self.parameters)

    def step(self, norms):
        state = (self.parameters, self.running)
        self.parameters, self.running, found = self.steps[norms](*state, self.inputs, self.aim)
        return found

    def read(self, pending):
        jax.device_get(pending)

    def synchronize(self):
        jax.block_until_ready((self.parameters, self.running))

    def loss_and_norms(self):
        (value, _), gradients = jax.value_and_grad(self.loss, has_aux=True)(self.parameters, self.inputs, self.aim)
        names = [part for parts in self.parts for part in parts]
        return {"loss": float(value), "norms": dict(zip(names, self.norms_of(gradients).tolist()))}


def stacked(network, weights):
    """gradmark's parameters in each of ours."""
    if network["kind"] != "residual" or network["depth"] <= MOST_WRITTEN_OUT:
        return {name: [name] for name in weights}
    stacks = {}
    for name in weights:
        part, _, rest = name.split(".", 2) if name.startswith("hidden.") else (name, "", "")
        stacks.setdefault(f"layers.{rest}" if part == "hidden" else name, []).append(name)
    in_order = lambda name: int(name.split(".")[1])
    return {name: sorted(parts, key=in_order) if is_stack(name) else parts for name, parts in stacks.items()}


def is_stack(name):
    return name.startswith("layers.")


def jitted_step(loss, norms_of):
    def step(parameters, running, inputs, aim):
        (_, found), gradients = jax.value_and_grad(loss, has_aux=True)(parameters, inputs, aim)
        parameters = [p - networks.LEARNING_RATE * g for p, g in zip(parameters, gradients)]
        mix = lambda old, new: (1 - NORM_MOMENTUM) * old + NORM_MOMENTUM * new
        return parameters, jax.tree.map(mix, running, found), norms_of(gradients) if norms_of else None

    return jax.jit(step, donate_argnums=(0, 1))


def norms_of(names, gradients):
    """Of every layer's by itself."""
    axes = lambda name, gradient: tuple(range(int(is_stack(name)), gradient.ndim))
    squares = [jnp.sum(gradient * gradient, axes(name, gradient)) for name, gradient in zip(names, gradients)]
    return jnp.sqrt(jnp.concatenate([jnp.atleast_1d(square) for square in squares]))


def loss(network, names, parameters, inputs, aim):
    """The loss, and the statistics of every batch norm."""
    p, found = dict(zip(names, parameters)), {}
    forward = {"plain": plain, "residual": residual, "recurrent": recurrent}[network["kind"]]
    outputs = forward(network, p, found, inputs)
    if network["data"] == "gaussian":
        return jnp.mean(outputs @ aim), found
    logarithms = jax.nn.log_softmax(outputs @ p["output.weight"] + p["output.bias"])
    return -jnp.mean(jnp.take_along_axis(logarithms, aim[:, None], axis=1)), found


def plain(network, p, found, x):
    activation = ACTIVATIONS[network["activation"]]

    def layer(x, p):
        z, statistics = normalized(network, p, x @ p["weight"] + p["bias"])
        return activation(z), statistics

    return through(layer, network, p, found, x)


def residual(network, p, found, x):
    activation = ACTIVATIONS[network["activation"]]

    def block(x, p):
        z, statistics = normalized(network, p, x)
        return x + (activation(z) @ p["weight"] + p["bias"]), statistics

    x = through(block, network, p, found, x @ p["stem.weight"] + p["stem.bias"])
    if "end.norm.gamma" in p:
        z, statistics = normalized(network, below(p, "end."), x)
        keep(found, "end.norm", statistics)
        x = activation(z)
    return x


def through(layer, network, p, found, x):
    """Through all hidden layers."""
    if "layers.weight" in p:
        x, statistics = jax.lax.scan(layer, x, below(p, "layers."))
        keep(found, "layers.norm", statistics)
        return x
    for index in range(network["depth"]):
        x, statistics = layer(x, below(p, f"hidden.{index}."))
        keep(found, f"hidden.{index}.norm", statistics)
    return x


def below(p, prefix):
    return {name.removeprefix(prefix): value for name, value in p.items() if name.startswith(prefix)}


def keep(found, name, statistics):
    if statistics is not None:
        found[name] = statistics


def normalized(network, p, x):
    """With the statistics of the batch or of each example, if there is a norm; those of the batch too."""
    if "norm.gamma" not in p:
        return x, None
    if network["norm"] == "layer":
        mean, variance = jnp.mean(x, axis=1, keepdims=True), jnp.var(x, axis=1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + NORM_EPSILON) * p["norm.gamma"] + p["norm.beta"], None
    mean, variance = jnp.mean(x, axis=0), jnp.var(x, axis=0)
    y = (x - mean) * (jax.lax.rsqrt(variance + NORM_EPSILON) * p["norm.gamma"]) + p["norm.beta"]
    return y, (mean, variance * (len(x) / (len(x) - 1)))


def recurrent(network, p, found, x):
    """The inputs of all time steps are one product, as in every fast form."""
    cell = {"rnn": rnn, "lstm": lstm, "gru": gru}[network["cell"]]
    sums = x @ p["hidden.0.input.weight"] + p["hidden.0.input.bias"]
    zeros = jnp.zeros([x.shape[1], network["width"]])
    step = functools.partial(cell, p["hidden.0.recurrent.weight"], p.get("hidden.0.recurrent.bias"))
    state, _ = jax.lax.scan(lambda state, sums: (step(state, sums), None), (zeros, zeros), sums)
    return state[0]


def rnn(weight, _, state, sums):
    hidden, cell = state
    return jnp.tanh(sums + hidden @ weight), cell


def lstm(weight, _, state, sums):
    hidden, cell = state
    i, f, g, o = jnp.split(sums + hidden @ weight, 4, axis=1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


def gru(weight, bias, state, sums):
    hidden, cell = state
    x_r, x_z, x_n = jnp.split(sums, 3, axis=1)
    h_r, h_z, h_n = jnp.split(hidden @ weight, 3, axis=1)
    r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * (h_n + bias))
    return (1 - z) * n + z * hidden, cell


if __name__ == "__main__":
    main()
