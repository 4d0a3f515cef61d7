"""What the sample models share: one way to train, to export and to record samples.

A model's folder holds `train.py`, `NAME.onnx` and `samples.json`. The samples are
what onnxruntime answers to held-out data; the engine's tests compare with them.
"""

import json
import pathlib
import random

import numpy as np
import onnx
import onnxruntime
import torch

OPSET = 17
MAX_IR_VERSION = 9
MAX_FILE_BYTES = 200 * 1024
# The operators that a sample model may use. A new one here is a new one in the engine.
OPERATORS = set(
    "Add Sub Mul Div MatMul Gemm Conv MaxPool AveragePool Relu Sigmoid Tanh Exp Log Sqrt "
    "Neg Abs Softmax Flatten Reshape Transpose Concat Slice Gather Squeeze Unsqueeze "
    "Identity Cast Clip ReduceMean ReduceSum ReduceMax ArgMax Constant".split()
)


def deterministic(seed: int) -> None:
    """Makes a second run give the same bytes: fixed seeds, one thread."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def train(model, inputs, targets, loss, *, epochs, batch=64, rate=3e-3, decay=1e-4):
    """Fits `model` with AdamW, the rate falling to zero along a cosine."""
    inputs, targets = torch.from_numpy(inputs), torch.from_numpy(targets)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(batch):
            optimizer.zero_grad()
            loss(model(inputs[rows]), targets[rows]).backward()
            optimizer.step()
        schedule.step()
    model.eval()


def export(model, example, path, *, input_name, output_names) -> None:
    """Writes `model` as one ONNX file whose only dynamic dimension is `batch`."""
    path = pathlib.Path(path)
    names = [input_name, *output_names]
    torch.onnx.export(
        model.eval(),
        (torch.from_numpy(example),),
        str(path),
        input_names=[input_name],
        output_names=output_names,
        dynamic_axes={name: {0: "batch"} for name in names},
        opset_version=OPSET,
        dynamo=False,
    )
    proto = onnx.load(path)
    proto.graph.name = path.stem
    proto.doc_string = proto.graph.doc_string = ""
    del proto.metadata_props[:]
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    check(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def check(proto) -> None:
    """Refuses a model that the project's rules for samples do not allow."""
    onnx.checker.check_model(proto, full_check=True)
    used = {node.op_type for node in proto.graph.node}
    assert used <= OPERATORS, f"operators outside the list: {used - OPERATORS}"
    assert proto.ir_version <= MAX_IR_VERSION
    assert proto.ByteSize() < MAX_FILE_BYTES
    for value in [*proto.graph.input, *proto.graph.output]:
        first, *rest = value.type.tensor_type.shape.dim
        assert first.dim_param == "batch", f"{value.name}: dimension 0 is not `batch`"
        assert all(dim.HasField("dim_value") for dim in rest), f"{value.name}: dynamic dimension"


class Reference:
    """onnxruntime on one thread and without graph rewriting: the operators as written."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.input_name = self.session.get_inputs()[0].name
        self.output_names = [output.name for output in self.session.get_outputs()]

    def __call__(self, inputs) -> dict[str, np.ndarray]:
        outputs = self.session.run(None, {self.input_name: inputs})
        return dict(zip(self.output_names, outputs))


def record_samples(path, rows, batches=(1,) * 10 + (3, 7)) -> None:
    """Writes samples.json beside the model at `path`; `rows` are cut into `batches` in order."""
    path, start, lines = pathlib.Path(path), 0, []
    reference = Reference(path)
    assert len(rows) >= sum(batches), "too few rows for the batches"
    for size in batches:
        inputs = rows[start : start + size]
        start += size
        outputs = {
            name: {"shape": list(value.shape), "type": str(value.dtype), "values": numbers(value)}
            for name, value in reference(inputs).items()
        }
        inputs = {
            reference.input_name: {"shape": list(inputs.shape), "values": numbers(inputs)}
        }
        lines.append(json.dumps({"inputs": inputs, "outputs": outputs}, allow_nan=False))
    # One sample a line, so that a difference can be read.
    runtime = f"onnxruntime {onnxruntime.__version__}"
    head = f'{{"model": {json.dumps(path.stem)}, "runtime": {json.dumps(runtime)}, "samples": [\n'
    path.with_name("samples.json").write_text(head + ",\n".join(lines) + "\n]}\n")


def numbers(array) -> list:
    """JSON numbers that read back as the same float32 (or integer) bits."""
    return array.ravel().tolist()
