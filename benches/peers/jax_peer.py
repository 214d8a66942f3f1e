#!/usr/bin/env python3
"""The training step in JAX, as a child process of compare.py: forward, backward, norms and update are one jitted function."""

import functools

import jax
import jax.numpy as jnp

import networks
import peer

ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "relu": jax.nn.relu}
NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.1


def main():
    peer.serve(Jitted, {"jax": jax.__version__})


class Jitted(peer.Trained):
    """Parameters are a list in the order of their names: a dict would be sorted at every step."""

    def __init__(self, network, weights):
        self.names = sorted(weights)
        self.parameters = [jnp.array(weights[name]) for name in self.names]
        self.inputs, self.aim = (jnp.array(array) for array in networks.examples(network))
        norms = [name.removesuffix(".gamma") for name in self.names if name.endswith(".norm.gamma")]
        self.running = {norm: (jnp.zeros(network["width"]), jnp.ones(network["width"])) for norm in norms}
        self.loss = functools.partial(loss, network, self.names)
        self.steps = {norms: jitted_step(self.loss, norms) for norms in [False, True]}

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
        return {"loss": float(value), "norms": dict(zip(self.names, norms_of(gradients).tolist()))}


def jitted_step(loss, norms):
    def step(parameters, running, inputs, aim):
        (_, found), gradients = jax.value_and_grad(loss, has_aux=True)(parameters, inputs, aim)
        parameters = [p - networks.LEARNING_RATE * g for p, g in zip(parameters, gradients)]
        mix = lambda old, new: (1 - NORM_MOMENTUM) * old + NORM_MOMENTUM * new
        return parameters, jax.tree.map(mix, running, found), norms_of(gradients) if norms else None

    return jax.jit(step, donate_argnums=(0, 1))


def norms_of(gradients):
    return jnp.stack([jnp.sqrt(jnp.sum(gradient * gradient)) for gradient in gradients])


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
    for index in range(network["depth"]):
        z = x @ p[f"hidden.{index}.weight"] + p[f"hidden.{index}.bias"]
        x = ACTIVATIONS[network["activation"]](normalized(f"hidden.{index}.norm", p, found, z))
    return x


def residual(network, p, found, x):
    activation = ACTIVATIONS[network["activation"]]
    x = x @ p["stem.weight"] + p["stem.bias"]
    for index in range(network["depth"]):
        a = activation(normalized(f"hidden.{index}.norm", p, found, x))
        x = x + (a @ p[f"hidden.{index}.weight"] + p[f"hidden.{index}.bias"])
    return activation(normalized("end.norm", p, found, x)) if "end.norm.gamma" in p else x


def normalized(name, p, found, x):
    if f"{name}.gamma" not in p:
        return x
    mean, variance = jnp.mean(x, axis=0), jnp.var(x, axis=0)
    found[name] = (mean, variance * (len(x) / (len(x) - 1)))
    return (x - mean) * (jax.lax.rsqrt(variance + NORM_EPSILON) * p[f"{name}.gamma"]) + p[f"{name}.beta"]


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
