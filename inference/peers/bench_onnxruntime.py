"""Times onnxruntime on the models and inputs of peers.

    bench_onnxruntime.py MODELS_DIR [--only SUBSTRING] [--seconds S]

prints the columns of onnxruntime alone. `peers --python` starts it with --worker and prints all.
Inputs and outputs are bound before the first run, so that Python adds about a microsecond.
"""

import argparse
import json
import math
import os
import pathlib
import time

import numpy as np
import onnx
import onnxruntime as ort

SAMPLE = 64
WARM_UP = 0.3
MIN_RUNS = 5


def read_cases():
    """Model, batch and specifications of the inputs, in the order of the tables."""
    models = json.loads((pathlib.Path(__file__).parent / "cases.json").read_text())
    return [(m["model"], batch, m["inputs"]) for m in models for batch in m["batches"]]


def split_mix(counter):
    """The output function of the generator SplitMix64, as in src/cases.rs."""
    x = counter * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def values(fill, seed, shape):
    """The elements of an input, as in src/cases.rs."""
    if fill == "ones":
        return np.ones(shape, np.int64)
    random = split_mix(np.uint64(seed << 32) | np.arange(math.prod(shape), dtype=np.uint64))
    if "below" in fill:
        return ((random >> np.uint64(32)) % np.uint64(fill["below"])).astype(np.int64).reshape(shape)
    low, high = (np.float32(x) for x in fill["uniform"])
    fraction = (random >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return (low + (high - low) * fraction).reshape(shape)


def start_session(path, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = onnx.load(path)
    for output in model.graph.output:
        # Some files declare a batch of 1, which onnxruntime holds against outputs that are bound.
        output.type.tensor_type.ClearField("shape")
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def bound(session, feeds):
    """A binding of all inputs, and of all outputs to memory of the shape that they have."""
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")
    session.run_with_iobinding(binding)
    for output, value in zip(session.get_outputs(), binding.get_outputs()):
        binding.bind_ortvalue_output(output.name, value)
    return binding


def measure(models, case, threads, seconds):
    """The least and the median time of a run, in nanoseconds, and the beginning of the answer."""
    model, batch, inputs = case
    session = start_session(models / model / "model.onnx", threads)
    feeds = {
        spec["name"]: values(spec["fill"], i + 1, (batch, *spec["shape"]))
        for i, spec in enumerate(inputs)
    }
    binding = bound(session, feeds)
    run = session._sess.run_with_iobinding  # without a wrapper that only catches errors
    io = binding._iobinding

    end = time.perf_counter() + WARM_UP
    while time.perf_counter() < end:
        run(io, None)
    times = []
    clock = time.perf_counter_ns
    end = clock() + int(seconds * 1e9)
    while len(times) < MIN_RUNS or clock() < end:
        begin = clock()
        run(io, None)
        times.append(clock() - begin)
    times.sort()
    floats = next(v for v in binding.get_outputs() if v.data_type() == "tensor(float)")
    output = floats.numpy().ravel()[:SAMPLE]
    return {
        "min_ns": times[0],
        "median_ns": times[len(times) // 2],
        "runs": len(times),
        "output": [float(x) for x in output],
    }


def show(nanoseconds):
    micros = nanoseconds / 1e3
    number, unit = (micros, "µs") if micros < 1000 else (micros / 1e3, "ms")
    return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f} {unit}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=pathlib.Path, help="what real_exports.py wrote")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="models whose name has it")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long each is run")
    parser.add_argument("--worker", nargs=2, metavar=("THREADS", "CASE"), help="one, as JSON")
    arguments = parser.parse_args()

    counts = {"one": 1, "all": len(os.sched_getaffinity(0))}
    cases = read_cases()
    if arguments.worker:
        threads, index = arguments.worker
        measured = measure(
            arguments.models, cases[int(index)], counts[threads], arguments.seconds
        )
        print(json.dumps(measured))
        return
    print(f"| model | batch | onnxruntime {ort.__version__}, one thread | all threads |")
    print("|---|--:|--:|--:|")
    for case in cases:
        if arguments.only not in case[0]:
            continue
        cells = []
        for threads in counts.values():
            try:
                measured = measure(arguments.models, case, threads, arguments.seconds)
                cells.append(f"{show(measured['min_ns'])} ({show(measured['median_ns'])})")
            except Exception as error:  # whatever onnxruntime throws: the other rows are wanted
                cells.append(" ".join(str(error).split())[:80])
        print(f"| {case[0]} | {case[1]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
