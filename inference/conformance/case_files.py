"""The files of a conformance case, in the layout of ONNX's own backend tests.

    <case>/model.onnx                        (and its external data, if any)
    <case>/tolerance.json                    {"rtol": .., "atol": ..}
    <case>/test_data_set_K/input_N.pb        the N-th graph input that has no initializer
    <case>/test_data_set_K/output_N.pb       the N-th graph output

Each .pb file is one serialised message, whose kind the type of the model's input or output tells:
a TensorProto, SequenceProto, OptionalProto or MapProto.
"""

import dataclasses
import json
import shutil

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper


@dataclasses.dataclass
class Case:
    """What the maker of a case returns, once it has written the model."""

    # The input sets: for each, the value of every input by name.
    feeds: list[dict[str, object]]
    rtol: float = 1e-4
    atol: float = 1e-5


def fed_inputs(graph):
    """The graph inputs that a caller must give: those without an initializer."""
    initialized = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in initialized]


def to_proto(value, name, type_proto):
    """Returns the message that stores `value`, named `name`, of the type `type_proto`."""
    kind = type_proto.WhichOneof("value")
    if kind == "optional_type":
        return numpy_helper.from_optional(value, name)
    if kind == "sequence_type":
        return _sequence_proto(value, name, type_proto.sequence_type.elem_type)
    if kind == "map_type":
        return _map_proto(value, name, type_proto.map_type)
    if isinstance(value, onnx.TensorProto):
        # Types that numpy lacks come as messages, not all of which have the name.
        proto = onnx.TensorProto()
        proto.CopyFrom(value)
        proto.name = name
        return proto
    return numpy_helper.from_array(np.asarray(value), name)


def _sequence_proto(values, name, element_type):
    proto = onnx.SequenceProto(name=name)
    kind = element_type.WhichOneof("value")
    if kind == "map_type":
        proto.elem_type = onnx.SequenceProto.MAP
        proto.map_values.extend(to_proto(value, "", element_type) for value in values)
    elif kind == "sequence_type":
        proto.elem_type = onnx.SequenceProto.SEQUENCE
        proto.sequence_values.extend(to_proto(value, "", element_type) for value in values)
    else:
        proto.elem_type = onnx.SequenceProto.TENSOR
        proto.tensor_values.extend(to_proto(value, "", element_type) for value in values)
    return proto


def _map_proto(mapping, name, map_type):
    """Like numpy_helper.from_dict, which takes neither strings as keys nor Python's numbers."""
    proto = onnx.MapProto(name=name, key_type=map_type.key_type)
    if map_type.key_type == onnx.TensorProto.STRING:
        proto.string_keys.extend(key.encode() for key in mapping)
    else:
        proto.keys.extend(mapping)
    # Each value is a tensor without dimensions.
    dtype = onnx.helper.tensor_dtype_to_np_dtype(map_type.value_type.tensor_type.elem_type)
    proto.values.elem_type = onnx.SequenceProto.TENSOR
    proto.values.tensor_values.extend(
        numpy_helper.from_array(np.array(value, dtype)) for value in mapping.values()
    )
    return proto


def start_case(folder):
    """Makes the case's folder anew."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def write_tolerance(folder, rtol, atol):
    """Writes how far an answer may be off: |got - expected| <= atol + rtol * |expected|."""
    (folder / "tolerance.json").write_text(json.dumps({"rtol": rtol, "atol": atol}) + "\n")


def write_data_set(folder, index, stem, values, infos):
    """Writes the inputs or the outputs (as `stem` says) of one data set."""
    data_set = folder / f"test_data_set_{index}"
    data_set.mkdir(exist_ok=True)
    for i, (value, info) in enumerate(zip(values, infos, strict=True)):
        proto = to_proto(value, info.name, info.type)
        # Deterministic, so that the same tests are the same bytes.
        content = proto.SerializeToString(deterministic=True)
        (data_set / f"{stem}_{i}.pb").write_bytes(content)


def write_answers(folder, feeds):
    """Runs the case's model on `feeds` with onnxruntime, and writes both as data sets."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # Without this, the sums of int8 products overflow 16 bits on processors that lack the VNNI
    # instructions, and the answers would depend on the machine.
    options.add_session_config_entry("session.x64quantprecision", "1")
    path = folder / "model.onnx"
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(path, load_external_data=False).graph
    inputs = fed_inputs(graph)
    for i, feed in enumerate(feeds):
        write_data_set(folder, i, "input", [feed[info.name] for info in inputs], inputs)
        write_data_set(folder, i, "output", session.run(None, feed), graph.output)
