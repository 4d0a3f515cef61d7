"""PyTorch models, exported by both of PyTorch's exporters, and int8 versions of two of them.

Each name in CASES stands for a function that writes `model.onnx` into a folder and returns the
inputs to run it on. A name that ends in `-dynamo` is of the exporter that traces with
torch.export (`dynamo=True`), the others are of the older TorchScript exporter (`dynamo=False`).
"""

import functools
import math
import pathlib
import tempfile

import numpy as np
import onnx
import sklearn.datasets
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn
from torch.nn import functional

from case_files import Case

SEED = 0


# ---- Data -------------------------------------------------------------------------------------


@functools.cache
def digits():
    """Scikit-learn's handwritten digits: 1797 rows of 64 pixels in 0..1, and what they show."""
    pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
    return (pixels / 16).astype(np.float32), labels


@functools.cache
def digit_images():
    """The same digits in the size of MNIST's: 28x28, one channel."""
    pixels, labels = digits()
    images = np.kron(pixels.reshape(-1, 8, 8), np.ones((3, 3), np.float32))
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))[:, np.newaxis], labels


def rows_of(array):
    """Three input sets: one row, a few, and more."""
    return [array[:1], array[1:6], array[6:38]]


# ---- Models -----------------------------------------------------------------------------------


class Mlp(nn.Sequential):
    """64-256-256-10."""

    def __init__(self):
        super().__init__(
            nn.Linear(64, 256),
            nn.ReLU(),
            nn.Linear(256, 256),
            nn.ReLU(),
            nn.Linear(256, 10),
        )


class DigitsCnn(nn.Sequential):
    """Two convolutions with pools, and two linear layers, for 28x28 images."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )


class ResidualBlock(nn.Module):
    """The basic block of ResNet-18 and ResNet-34."""

    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, momentum=None)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels, momentum=None)
        self.downsample = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False),
                nn.BatchNorm2d(channels, momentum=None),
            )

    def forward(self, x):
        skipped = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)) + skipped)


class ResNet18(nn.Module):
    """The usual ResNet-18 for 224x224 images.

    Its batch normalisations have momentum=None: their running statistics are the plain mean over
    the batches seen, so that one pass in training mode gives fitting ones.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64, momentum=None)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        blocks = []
        channels_in = 64
        for channels, stride in [(64, 1), (128, 2), (256, 2), (512, 2)]:
            blocks.append(ResidualBlock(channels_in, channels, stride))
            blocks.append(ResidualBlock(channels, channels, 1))
            channels_in = channels
        self.blocks = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512, 1000)

    def forward(self, x):
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.blocks(x))
        return self.fc(torch.flatten(x, 1))


class SequenceClassifier(nn.Module):
    """Token ids to an embedding, to an LSTM or a GRU, to the logits of 4 classes."""

    VOCABULARY = 50

    def __init__(self, kind, layers, bidirectional):
        super().__init__()
        self.embedding = nn.Embedding(self.VOCABULARY, 16)
        self.rnn = kind(16, 32, layers, batch_first=True, bidirectional=bidirectional)
        self.linear = nn.Linear(64 if bidirectional else 32, 4)

    def forward(self, ids):
        states, _ = self.rnn(self.embedding(ids))
        # What both directions end with is at different ends, so their states are averaged.
        pooled = states.mean(dim=1) if self.rnn.bidirectional else states[:, -1]
        return self.linear(pooled)


class EncoderLayer(nn.Module):
    """A layer of BERT: attention and a feed-forward network, each added and then normalised."""

    def __init__(self, width, heads, inner):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.attention_out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width)

    def split(self, x):
        batch, length, width = x.shape
        return x.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

    def forward(self, x, bias):
        query = self.split(self.query(x))
        key = self.split(self.key(x))
        value = self.split(self.value(x))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights = torch.softmax(scores + bias, dim=-1)
        mixed = (weights @ value).transpose(1, 2).reshape(x.shape)
        x = self.norm1(x + self.attention_out(mixed))
        return self.norm2(x + self.outer(functional.gelu(self.inner(x))))


class Encoder(nn.Module):
    """A sentence encoder of the size of MiniLM-L6, but for its small vocabulary.

    Gives the last hidden state, and its mean over the tokens that the mask leaves, of length one.
    """

    VOCABULARY = 1000

    def __init__(self, width=384, heads=12, inner=1536, layers=6, positions=128):
        super().__init__()
        self.token_embedding = nn.Embedding(self.VOCABULARY, width)
        self.position_embedding = nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, inner) for _ in range(layers))

    def forward(self, input_ids, attention_mask):
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.norm(self.token_embedding(input_ids) + self.position_embedding(positions))
        bias = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        for layer in self.layers:
            x = layer(x, bias)
        mask = attention_mask[:, :, None].float()
        pooled = (x * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
        return x, functional.normalize(pooled, dim=1)


class GptLayer(nn.Module):
    """A layer of GPT-2, with PyTorch's own causal attention."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        query, key, value = (
            part.view(shape).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.outer(functional.gelu(self.inner(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """A small GPT over bytes: 4 layers, 128 wide, its output tied to its embedding."""

    def __init__(self, width=128, heads=4, layers=4, positions=64):
        super().__init__()
        self.token_embedding = nn.Embedding(256, width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        self.position_embedding = nn.Embedding(positions, width)
        self.layers = nn.ModuleList(GptLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids):
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.token_embedding(ids) + self.position_embedding(positions)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x) @ self.token_embedding.weight.T


# ---- Training ---------------------------------------------------------------------------------


def train(model, inputs, targets, epochs):
    """Trains a classifier: logits of the last axis against class numbers."""
    inputs, targets = torch.from_numpy(inputs), torch.from_numpy(targets)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(64):
            logits = model(inputs[rows])
            loss = functional.cross_entropy(logits.flatten(0, -2), targets[rows].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@functools.cache
def trained_mlp():
    torch.manual_seed(SEED)
    return train(Mlp(), *digits(), epochs=15)


@functools.cache
def trained_digits_cnn():
    torch.manual_seed(SEED)
    return train(DigitsCnn(), *digit_images(), epochs=3)


@functools.cache
def resnet18():
    torch.manual_seed(SEED)
    model = ResNet18()
    with torch.no_grad():
        model(torch.rand(4, 3, 224, 224))  # in training mode, for the running statistics
    return model.eval()


@functools.cache
def sequence_classifier(kind, layers, bidirectional):
    torch.manual_seed(SEED)
    ids = np.random.default_rng(SEED).integers(0, SequenceClassifier.VOCABULARY, (512, 12))
    # The class is the remainder of the first token: something to be remembered to the end.
    model = SequenceClassifier(kind, layers, bidirectional)
    return train(model, ids, ids[:, 0] % 4, epochs=3)


@functools.cache
def encoder():
    torch.manual_seed(SEED)
    return Encoder().eval()


@functools.cache
def gpt():
    torch.manual_seed(SEED)
    text = " ".join(str(number) for number in range(1000)).encode()
    length = 32
    starts = range(0, len(text) - length - 1, 7)
    inputs = np.stack([np.frombuffer(text, np.uint8, length, start) for start in starts])
    targets = np.stack([np.frombuffer(text, np.uint8, length, start + 1) for start in starts])
    return train(Gpt(), inputs.astype(np.int64), targets.astype(np.int64), epochs=4)


# ---- Export -----------------------------------------------------------------------------------


def export(model, path, feeds, outputs, dynamic, dynamo, **options):
    """Exports `model`, which takes the inputs of `feeds` in their order.

    `dynamic` has the names of each input's dynamic axes: {input: {axis: name}}; the outputs' axes
    follow from them in the new exporter, and have the names of `outputs` in the old one.
    """
    # The new exporter takes an axis for a constant if it is 1, so it gets the last, larger feed.
    example = {name: torch.from_numpy(value) for name, value in feeds[-1].items()}
    if dynamo:
        dims = {name: torch.export.Dim(name) for axes in dynamic.values() for name in axes.values()}
        options["dynamic_shapes"] = tuple(
            {axis: dims[name] for axis, name in dynamic[input_].items()} for input_ in example
        )
    else:
        options["dynamic_axes"] = dynamic | outputs
    torch.onnx.export(
        model,
        tuple(example.values()),
        path,
        input_names=list(example),
        output_names=list(outputs),
        dynamo=dynamo,
        verbose=False,
        # By default the new exporter writes the weights to a second file.
        **({"external_data": False} if dynamo else {}) | options,
    )


def export_mlp(folder, dynamo, **options):
    feeds = [{"x": rows} for rows in rows_of(digits()[0])]
    outputs, dynamic = {"logits": {0: "batch"}}, {"x": {0: "batch"}}
    export(trained_mlp(), folder / "model.onnx", feeds, outputs, dynamic, dynamo, **options)
    return Case(feeds)


def export_mlp_external(folder):
    """The MLP with its weights moved to a second file by the `onnx` package."""
    case = export_mlp(folder, dynamo=False)
    path = folder / "model.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin")
    return case


def export_digits_cnn(folder, dynamo, **options):
    feeds = [{"image": rows} for rows in rows_of(digit_images()[0])]
    outputs, dynamic = {"logits": {0: "batch"}}, {"image": {0: "batch"}}
    export(trained_digits_cnn(), folder / "model.onnx", feeds, outputs, dynamic, dynamo, **options)
    return Case(feeds)


def export_resnet18(folder, dynamo, **options):
    images = np.random.default_rng(SEED).random((3, 3, 224, 224), np.float32)
    feeds = [{"image": images[:1]}, {"image": images[1:]}]
    outputs, dynamic = {"logits": {0: "batch"}}, {"image": {0: "batch"}}
    export(resnet18(), folder / "model.onnx", feeds, outputs, dynamic, dynamo, **options)
    return Case(feeds)


def token_feeds(name, vocabulary, shapes):
    rng = np.random.default_rng(SEED)
    return [{name: rng.integers(0, vocabulary, shape)} for shape in shapes]


def export_sequence_classifier(folder, dynamo, kind, layers=1, bidirectional=False, **options):
    model = sequence_classifier(kind, layers, bidirectional)
    feeds = token_feeds("ids", SequenceClassifier.VOCABULARY, [(1, 12), (1, 5), (4, 12), (3, 20)])
    outputs, dynamic = {"logits": {0: "batch"}}, {"ids": {0: "batch", 1: "sequence"}}
    export(model, folder / "model.onnx", feeds, outputs, dynamic, dynamo, **options)
    return Case(feeds)


def export_encoder(folder, dynamo, **options):
    feeds = token_feeds("input_ids", Encoder.VOCABULARY, [(1, 8), (1, 24), (3, 16)])
    for feed in feeds:
        feed["attention_mask"] = np.ones_like(feed["input_ids"])
    # The sentences of a batch are of different lengths.
    feeds[-1]["attention_mask"][1, 9:] = 0
    feeds[-1]["attention_mask"][2, 5:] = 0
    axes = {0: "batch", 1: "sequence"}
    outputs = {"last_hidden_state": axes, "sentence_embedding": {0: "batch"}}
    dynamic = {"input_ids": axes, "attention_mask": axes}
    export(encoder(), folder / "model.onnx", feeds, outputs, dynamic, dynamo, **options)
    return Case(feeds)


def export_gpt(folder, dynamo, **options):
    texts = [[b"1 2 3 4 5 6 7"], [b"198 199 200 201 202 203 204 2"], [b"41 42 43", b"98 99 10"]]
    feeds = [
        {"ids": np.stack([np.frombuffer(row, np.uint8) for row in text]).astype(np.int64)}
        for text in texts
    ]
    axes = {0: "batch", 1: "sequence"}
    outputs, dynamic = {"logits": axes}, {"ids": axes}
    export(gpt(), folder / "model.onnx", feeds, outputs, dynamic, dynamo, **options)
    return Case(feeds)


# ---- Quantisation -----------------------------------------------------------------------------


class Calibration(CalibrationDataReader):
    """Gives the quantiser some rows to see the ranges of the activations on."""

    def __init__(self, name, rows):
        self.batches = iter([{name: rows[i : i + 32]} for i in range(0, 256, 32)])

    def get_next(self):
        return next(self.batches, None)


def quantise(folder, export_float, rows, quantiser):
    """Exports a float model, and has `quantiser(source, target, calibration)` make an int8 one."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        case = export_float(scratch, dynamo=False)
        [name] = case.feeds[0]
        # What onnxruntime's guide says to do first: infers shapes and folds what is constant.
        quant_pre_process(scratch / "model.onnx", scratch / "prepared.onnx")
        calibration = Calibration(name, rows()[0])
        case.atol = quantiser(scratch / "prepared.onnx", folder / "model.onnx", calibration)
    return case


# A float sum that is right but for its rounding may, before it is quantised, be on the other side
# of the middle between two steps. That moves a hidden value by one step, and so a logit by little
# (DYNAMIC_ATOL); where the logits are themselves quantised, by one of their steps (STATIC_ATOL;
# their range is about 40, so a step is about 0.15).
DYNAMIC_ATOL = 0.02
STATIC_ATOL = 0.2


def dynamic_int8(source, target, _calibration):
    """Int8 weights; the activations are quantised as they come. The logits are floats."""
    quantize_dynamic(source, target, weight_type=QuantType.QInt8)
    return DYNAMIC_ATOL


def static_qdq(source, target, calibration, per_channel=False):
    """Float operators between pairs of QuantizeLinear and DequantizeLinear: the default."""
    quantize_static(source, target, calibration, per_channel=per_channel)
    return STATIC_ATOL


def static_qoperator(source, target, calibration):
    """Operators on int8, some of which are onnxruntime's own: QGemm and QLinearAveragePool."""
    quantize_static(
        source,
        target,
        calibration,
        quant_format=QuantFormat.QOperator,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return STATIC_ATOL


def static_qlinear(source, target, calibration):
    """Operators on int8, all of which are of ONNX itself: QLinearConv and QLinearMatMul."""
    model = ONNXModel(onnx.load(source))
    model.replace_gemm_with_matmul()
    model.clean_initializers()
    quantize_static(
        model.model,
        target,
        calibration,
        quant_format=QuantFormat.QOperator,
        op_types_to_quantize=["Conv", "MatMul"],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return STATIC_ATOL


# ---- The cases --------------------------------------------------------------------------------


def make_cases():
    """Returns the maker of each case by the case's name."""
    cases = {}
    models = {
        "torch-mlp": export_mlp,
        "torch-digits-cnn": export_digits_cnn,
        "torch-resnet18": export_resnet18,
        "torch-lstm": functools.partial(export_sequence_classifier, kind=nn.LSTM),
        "torch-gru": functools.partial(export_sequence_classifier, kind=nn.GRU),
        "torch-lstm-bidirectional": functools.partial(
            export_sequence_classifier, kind=nn.LSTM, layers=2, bidirectional=True
        ),
        "torch-gru-bidirectional": functools.partial(
            export_sequence_classifier, kind=nn.GRU, layers=2, bidirectional=True
        ),
        "torch-encoder": export_encoder,
        "torch-gpt": export_gpt,
    }
    for name, maker in models.items():
        cases[name] = functools.partial(maker, dynamo=False)
        cases[f"{name}-dynamo"] = functools.partial(maker, dynamo=True)

    cases["torch-mlp-external"] = export_mlp_external
    # The new exporter's own default: `model.onnx.data` beside `model.onnx`.
    cases["torch-mlp-dynamo-external"] = functools.partial(
        export_mlp, dynamo=True, external_data=True
    )

    # Models of older versions of the operators, as most that are around, and of the newest.
    for name, opset in [
        ("torch-digits-cnn", 9),
        ("torch-resnet18", 11),
        ("torch-lstm-bidirectional", 11),
        ("torch-gru-bidirectional", 9),
        ("torch-encoder", 13),  # layer normalisation and GELU in small operators
        ("torch-gpt", 14),  # the first to have the exporter's causal attention
    ]:
        cases[f"{name}-opset{opset}"] = functools.partial(
            models[name], dynamo=False, opset_version=opset
        )
    # From 23 on, attention is one operator.
    cases["torch-gpt-dynamo-opset24"] = functools.partial(export_gpt, dynamo=True, opset_version=24)
    # With the batch normalisations left as they are, rather than folded into the convolutions.
    cases["torch-resnet18-batchnorm"] = functools.partial(
        export_resnet18, dynamo=False, training=torch.onnx.TrainingMode.PRESERVE
    )

    for name, export_float, rows in [
        ("torch-mlp", export_mlp, digits),
        ("torch-digits-cnn", export_digits_cnn, digit_images),
    ]:
        for suffix, quantiser in {
            "int8-dynamic": dynamic_int8,
            "int8-qdq": static_qdq,
            "int8-qdq-per-channel": functools.partial(static_qdq, per_channel=True),
            "int8-qoperator": static_qoperator,
            "int8-qlinear": static_qlinear,
        }.items():
            cases[f"{name}-{suffix}"] = functools.partial(
                quantise, export_float=export_float, rows=rows, quantiser=quantiser
            )
    return cases


CASES = make_cases()
