"""What the peers have in common: a child process that answers requests, one line of JSON each.

    {"do": "build", "name": .., "network": {..}, "weights": "tensors_step_0.safetensors"}  ->  {"parameters": 327552}
    {"do": "time", "name": .., "norms": true, "steps": 20}                                 ->  {"elapsed_ms": 81.3}
    {"do": "norms", "name": ..}                                                 ->  {"loss": 2.3, "norms": {"output.bias": ..}}
    {"do": "drop", "name": ..}                                                             ->  {}

Between requests it waits for the next line and does nothing. Networks start from the weights that gradmark has dumped.
"""

import json
import os
import sys
import time

# A step leaves its norms on the device; they are brought to the host in one transfer for so many steps, as gradmark does.
STEPS_PER_READING = 64


def serve(build, versions):
    """Answers until the input ends. `build(network, weights)` gives what `Trained` describes."""
    # Nothing but answers may stand in the output: what libraries print goes where errors go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answer = lambda found: print(json.dumps(found), file=answers, flush=True)
    answer({"versions": versions})
    networks = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["name"]
        if request["do"] == "build":
            networks[name] = build(request["network"], load(request["weights"]))
            answer({"parameters": networks[name].parameter_count()})
        elif request["do"] == "time":
            answer({"elapsed_ms": elapsed_ms(networks[name], request["norms"], request["steps"])})
        elif request["do"] == "norms":
            answer(networks[name].loss_and_norms())
        else:
            del networks[name]
            answer({})


class Trained:
    """A network with its one batch and its optimizer."""

    def parameter_count(self):
        """Numbers that are trained."""
        raise NotImplementedError

    def step(self, norms):
        """One step, with the norms of all gradients on the device, or None."""
        raise NotImplementedError

    def read(self, pending):
        """Brings norms to the host."""
        raise NotImplementedError

    def synchronize(self):
        """Waits for the device."""
        raise NotImplementedError

    def loss_and_norms(self):
        """The loss and, under gradmark's names, the norm of the gradient of every parameter, before any update."""
        raise NotImplementedError


def elapsed_ms(network, norms, steps):
    pending = []
    network.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        found = network.step(norms)
        if norms:
            pending.append(found)
        if len(pending) == STEPS_PER_READING:
            network.read(pending)
            pending = []
    if pending:
        network.read(pending)
    network.synchronize()
    return (time.perf_counter() - start) * 1e3


def load(path):
    """The parameters that gradmark has dumped, by name: eight bytes of length, a header in JSON, the numbers."""
    import numpy

    with open(path, "rb") as file:
        content = file.read()
    length = int.from_bytes(content[:8], "little")
    header, numbers = json.loads(content[8 : 8 + length]), content[8 + length :]
    is_parameter = lambda name: not name.endswith(".grad") and ".running_" not in name and name != "__metadata__"
    return {
        name: numpy.frombuffer(numbers[slice(*entry["data_offsets"])], numpy.float32).reshape(entry["shape"])
        for name, entry in header.items()
        if is_parameter(name)
    }
