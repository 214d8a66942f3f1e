#!/usr/bin/env python3
"""The training step in PyTorch, as a child process of compare.py: `pytorch.py eager`, `compile` or `cuda_graph`."""

import sys
import types

import torch
from torch import nn
from torch.nn import functional

import networks
import peer

ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}
NORMS = {"none": lambda _: nn.Identity(), "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def main():
    mode, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if mode == "cuda_graph" and device == "cpu":
        sys.exit("a CUDA graph needs a CUDA card")
    form = {"eager": Eager, "compile": Compiled, "cuda_graph": CudaGraph}[mode]
    peer.serve(lambda network, weights: form(network, weights, device), {"torch": torch.__version__})


class Mlp(nn.Module):
    """Plain, `activation(norm(W x + b))`, or of blocks `x + W activation(norm(x)) + b` behind a stem."""

    def __init__(self, network):
        super().__init__()
        width, depth = network["width"], network["depth"]
        self.activation = ACTIVATIONS[network["activation"]]
        self.is_residual = network["kind"] == "residual"
        norm, has_output = NORMS[network["norm"]], network["data"] == "digits"
        first = width if self.is_residual else network["inputs"]
        self.stem = nn.Linear(network["inputs"], width) if self.is_residual else None
        self.hidden = nn.ModuleList(nn.Linear(width if index else first, width) for index in range(depth))
        self.norm = nn.ModuleList(norm(width) for _ in range(depth))
        self.end = norm(width) if self.is_residual and has_output else None
        self.output = nn.Linear(width, networks.CLASSES) if has_output else None

    def forward(self, x):
        if self.is_residual:
            x = self.stem(x)
            for linear, norm in zip(self.hidden, self.norm):
                x = x + linear(self.activation(norm(x)))
            if self.end is not None:
                x = self.activation(self.end(x))
        else:
            for linear, norm in zip(self.hidden, self.norm):
                x = self.activation(norm(linear(x)))
        return x if self.output is None else self.output(x)

    def named(self):
        """The parameters under gradmark's names, with what makes gradmark's form of each."""
        layers = [(f"hidden.{index}", linear) for index, linear in enumerate(self.hidden)]
        layers += [("stem", self.stem), ("output", self.output)]
        norms = [(f"hidden.{index}.norm", norm) for index, norm in enumerate(self.norm)] + [("end.norm", self.end)]
        for name, layer in layers:
            yield from linear_parts(name, layer) if layer is not None else []
        for name, norm in norms:
            if isinstance(norm, (nn.BatchNorm1d, nn.LayerNorm)):
                yield f"{name}.gamma", norm.weight, whole
                yield f"{name}.beta", norm.bias, whole


class Recurrent(nn.Module):
    """A layer over `[time steps, batch, numbers]`, of which the last hidden state counts."""

    def __init__(self, network):
        super().__init__()
        self.layer = CELLS[network["cell"]](network["inputs"], network["width"])
        self.output = nn.Linear(network["width"], networks.CLASSES) if network["data"] == "digits" else None
        # PyTorch has a second bias a gate, which here is 0. gradmark has it in the candidate of a GRU alone.
        nn.init.zeros_(self.layer.bias_hh_l0)

    def forward(self, x):
        states, _ = self.layer(x)
        return states[-1] if self.output is None else self.output(states[-1])

    def named(self):
        layer, units = self.layer, self.layer.hidden_size
        yield "hidden.0.input.weight", layer.weight_ih_l0, transposed
        yield "hidden.0.input.bias", layer.bias_ih_l0, whole
        yield "hidden.0.recurrent.weight", layer.weight_hh_l0, transposed
        if isinstance(layer, nn.GRU):
            yield "hidden.0.recurrent.bias", layer.bias_hh_l0, lambda bias: bias[2 * units :]
        yield from linear_parts("output", self.output) if self.output is not None else []


def linear_parts(name, linear):
    yield f"{name}.weight", linear.weight, transposed
    yield f"{name}.bias", linear.bias, whole


def whole(parameter):
    return parameter


def transposed(parameter):
    return parameter.T


class Eager(peer.Trained):
    """The step as PyTorch's tutorials have it; `torch._foreach_norm` takes the norms of all gradients at once."""

    def __init__(self, network, weights, device):
        self.model = (Recurrent if network["kind"] == "recurrent" else Mlp)(network).to(device)
        fill(self.model, weights)
        inputs, aim = (torch.from_numpy(array).to(device) for array in networks.examples(network))
        self.inputs, self.aim, self.device = inputs, aim, device
        self.has_classes = network["data"] == "digits"
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.SGD(self.parameters, lr=networks.LEARNING_RATE)

    def parameter_count(self):
        return sum(parameter.numel() for parameter in self.parameters)

    def loss(self):
        outputs = self.model(self.inputs)
        return functional.cross_entropy(outputs, self.aim) if self.has_classes else (outputs @ self.aim).mean()

    def step(self, norms):
        self.optimizer.zero_grad()
        self.loss().backward()
        found = norms_of([parameter.grad for parameter in self.parameters]) if norms else None
        self.optimizer.step()
        return found

    def read(self, pending):
        torch.stack(pending).cpu()

    def synchronize(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def loss_and_norms(self):
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        norms = {name: part(parameter.grad).norm().item() for name, parameter, part in self.model.named()}
        return {"loss": loss.item(), "norms": norms}


class Compiled(Eager):
    """The loss, with its backward pass, and the norms with the update are compiled."""

    def __init__(self, network, weights, device):
        super().__init__(network, weights, device)
        self.loss = torch.compile(fresh(super().loss), dynamic=False)
        self.update = torch.compile(fresh(update), dynamic=False)
        self.measured_update = torch.compile(fresh(measured_update), dynamic=False)

    def step(self, norms):
        self.optimizer.zero_grad()
        self.loss().backward()
        gradients = [parameter.grad for parameter in self.parameters]
        with torch.no_grad():
            return (self.measured_update if norms else self.update)(self.parameters, gradients)


class CudaGraph(Eager):
    """The whole step is recorded once and replayed, with the norms and without them."""

    def __init__(self, network, weights, device):
        super().__init__(network, weights, device)
        self.graphs = {norms: self.record(norms) for norms in [False, True]}

    def record(self, norms):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                super().step(norms)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad()
        with torch.cuda.graph(graph):
            found = super().step(norms)
        return graph, found

    def step(self, norms):
        graph, found = self.graphs[norms]
        graph.replay()
        return found.clone() if norms else None


def fill(model, weights):
    with torch.no_grad():
        for name, parameter, part in model.named():
            part(parameter).copy_(torch.from_numpy(weights.pop(name).copy()))
    if weights:
        raise ValueError(f"the network has no {', '.join(weights)}")


def norms_of(gradients):
    return torch.stack(torch._foreach_norm(gradients))


def update(parameters, gradients):
    torch._foreach_add_(parameters, gradients, alpha=-networks.LEARNING_RATE)


def measured_update(parameters, gradients):
    norms = norms_of(gradients)
    torch._foreach_add_(parameters, gradients, alpha=-networks.LEARNING_RATE)
    return norms


def fresh(function):
    """The same with a code object of its own: what is compiled is kept there, and all of it looked through at every
    call."""
    copy = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    return types.MethodType(copy, function.__self__) if hasattr(function, "__self__") else copy


if __name__ == "__main__":
    main()
