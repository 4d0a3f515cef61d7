"""The real exports with larger inputs, as the README compares them: each folder has the model and the inputs of an export,
repeated to other sizes.

    target/conformance/python/bin/python inference/peers/larger_cases.py FOLDER
    PENSTOCK_ONNX_CASES=FOLDER cargo bench --workspace --bench cost
    PENSTOCK_ONNX_CASES=FOLDER target/conformance/python/bin/python inference/peers/onnxruntime_times.py ""
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

CASES = Path(__file__).resolve().parents[2] / "target" / "conformance" / "real"
# The first dimensions of every input.
SIZES = {
    "torch-mlp": [(1,), (64,)],
    "torch-digits-cnn": [(1,), (32,)],
    "torch-resnet18": [(1,)],
    "torch-encoder": [(1, 128), (4, 128)],
    "torch-mlp-int8-qdq": [(1,), (64,)],
    "torch-mlp-int8-dynamic": [(1,), (64,)],
    "torch-digits-cnn-int8-qdq": [(1,), (32,)],
    "lightgbm-forest": [(1,)],
}


def main():
    folder = Path(sys.argv[1]) / "real"
    for name, sizes in SIZES.items():
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        link = target / "model.onnx"
        link.unlink(missing_ok=True)
        link.symlink_to(CASES / name / "model.onnx")
        for number, size in enumerate(sizes):
            data = target / f"test_data_set_{number}"
            data.mkdir(exist_ok=True)
            for source in (CASES / name / "test_data_set_0").glob("input_*.pb"):
                value = numpy_helper.to_array(onnx.load_tensor(str(source)))
                value = np.resize(value, size + value.shape[len(size):])
                (data / source.name).write_bytes(numpy_helper.from_array(value).SerializeToString())


main()
