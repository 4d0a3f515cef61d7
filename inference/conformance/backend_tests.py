"""Writes the backend tests of the installed `onnx` package as files.

    backend_tests.py OUT

makes the folder OUT/<kind>/<test name> for every test, with the files that case_files.py tells of.

The kinds are:

    node                one operator each (and its `_expanded` form, where it is a function)
    simple              small graphs written in Python
    pytorch-operator    exports of single PyTorch operators, shipped with the package
    pytorch-converted   exports of PyTorch modules, shipped with the package
    light               known image networks (ResNet-50, VGG-19, ...) whose weights are constants

The package's "real" tests are the networks of `light` under another name, and are left out.

Everything is computed on this machine from fixed seeds; nothing is downloaded.
"""

import argparse
import collections
import pathlib
import shutil

import numpy as np
import onnx
from onnx.backend.test.case.model import collect_testcases
from onnx.backend.test.loader import load_model_tests

from case_files import fed_inputs, start_case, write_data_set, write_tolerance

DATA = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data"

# The kinds whose files are in the package.
SHIPPED = ["pytorch-operator", "pytorch-converted"]


def write_case(folder, case):
    """Writes a test whose model and data are in memory."""
    start_case(folder)
    write_tolerance(folder, case.rtol, case.atol)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString(deterministic=True))
    [(inputs, outputs)] = case.data_sets
    write_data_set(folder, 0, "input", inputs, fed_inputs(case.model.graph))
    write_data_set(folder, 0, "output", outputs, case.model.graph.output)


def copy_case(folder, case):
    """Copies a test whose files are in the package."""
    source = pathlib.Path(case.model_dir)
    start_case(folder)
    write_tolerance(folder, case.rtol, case.atol)
    shutil.copy(source / "model.onnx", folder)
    shutil.copytree(source / "test_data_set_0", folder / "test_data_set_0")


def write_light_case(folder, case):
    """Writes a network of `light`: the package has its model and its output, not its input."""
    start_case(folder)
    write_tolerance(folder, case.rtol, case.atol)
    stem = f"light_{case.model_name}"
    shutil.copy(DATA / "light" / f"{stem}.onnx", folder / "model.onnx")
    graph = onnx.load(folder / "model.onnx").graph
    [info] = fed_inputs(graph)
    # The input that the package's own test runner makes (Runner.generate_dummy_data).
    shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
    count = np.prod(shape)
    value = (np.arange(count).reshape(shape) / count).astype(np.float32)
    write_data_set(folder, 0, "input", [value], [info])
    shutil.copy(DATA / "light" / f"{stem}_output_0.pb", folder / "test_data_set_0" / "output_0.pb")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path, help="the folder to write to")
    out = parser.parse_args().out

    counts = collections.Counter()
    # Importing the node tests computes them, each from its own seed.
    for case in load_model_tests(kind="node"):
        write_case(out / "node" / case.name, case)
        counts["node"] += 1
    for case in collect_testcases():
        if case.kind == "real":
            write_light_case(out / "light" / case.name, case)
            counts["light"] += 1
        else:
            write_case(out / case.kind / case.name, case)
            counts[case.kind] += 1
    for kind in SHIPPED:
        for case in load_model_tests(kind=kind):
            copy_case(out / kind / case.name, case)
            counts[kind] += 1

    for kind, count in sorted(counts.items()):
        print(f"{kind}: {count}")
    print(f"onnx {onnx.__version__}: {counts.total()} tests in {out}")


if __name__ == "__main__":
    main()
