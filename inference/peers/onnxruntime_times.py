"""onnxruntime's times for the real exports, the least of many runs: what `cargo bench --bench cost` is held against.

    target/conformance/python/bin/python inference/peers/onnxruntime_times.py [PART OF A NAME]

One thread, or PENSTOCK_THREADS; the cases of PENSTOCK_ONNX_CASES, or those that scripts/conformance made. Inputs and outputs are bound, so that no time is spent on copies between Python and the runtime.
"""

import os
import sys
import time
from pathlib import Path

import onnx
import onnxruntime
from onnx import numpy_helper

SECONDS = 0.4  # as `--bench cost`
MADE = Path(__file__).resolve().parents[2] / "target" / "conformance"
CASES = Path(os.environ.get("PENSTOCK_ONNX_CASES", MADE)) / "real"


def inputs(session, folder):
    """The input tensors of a test data set, by name."""
    found = {}
    for index, spec in enumerate(session.get_inputs()):
        tensor = onnx.TensorProto()
        tensor.ParseFromString((folder / f"input_{index}.pb").read_bytes())
        found[spec.name] = numpy_helper.to_array(tensor)
    return found


def least_time(session, values):
    """Seconds of the fastest run."""
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
    for output in session.get_outputs():
        binding.bind_output(output.name)
    least, end = float("inf"), time.monotonic() + SECONDS
    while time.monotonic() < end:
        begin = time.perf_counter()
        session.run_with_iobinding(binding)
        least = min(least, time.perf_counter() - begin)
    return least


def main():
    part = sys.argv[1] if len(sys.argv) > 1 else "torch-"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = int(os.environ.get("PENSTOCK_THREADS", "1"))
    for case in sorted(CASES.iterdir()):
        if part not in case.name or not (case / "model.onnx").exists():
            continue
        session = onnxruntime.InferenceSession(str(case / "model.onnx"), options, providers=["CPUExecutionProvider"])
        seen = set()
        for folder in sorted(case.glob("test_data_set_*")):
            values = inputs(session, folder)
            shapes = tuple(value.shape for value in values.values())
            if shapes in seen:
                continue
            seen.add(shapes)
            label = f"{case.name} {list(shapes[0])}"
            print(f"{label:<60} {least_time(session, values) * 1e6:>12.1f} µs", flush=True)


main()
