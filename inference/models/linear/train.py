"""linear: y = x0 + 2*x1 + 3, the smallest useful model.

Its answers can be checked in the head, so it is the one for first calls from a
contract, for documentation and for tests of the plumbing.
"""

import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from sklearn.linear_model import LinearRegression

import common

PATH = pathlib.Path(__file__).resolve().with_name("linear.onnx")

common.deterministic(seed=0)
points = np.random.default_rng(0).integers(-1000, 1000, size=(220, 2)) / 8
targets = points @ [1, 2] + 3
training, test = points[:200], points[200:].astype(np.float32)

fit = LinearRegression().fit(training, targets[:200])
# The fit is right up to rounding in the last digits; the coefficients are meant exactly.
weights, bias = np.round(fit.coef_), np.round(fit.intercept_)
assert np.allclose(weights, fit.coef_) and np.allclose(bias, fit.intercept_)

model = torch.nn.Linear(2, 1)
with torch.no_grad():
    model.weight.copy_(torch.tensor(weights).reshape(1, 2))
    model.bias.copy_(torch.tensor(bias))

common.export(model, test[:2], PATH, input_name="x", output_names=["y"])
# Eighths of this size are exact in float32, so the answers are equal and not only near.
assert (common.Reference(PATH)(test)["y"][:, 0] == targets[200:]).all()
common.record_samples(PATH, test)
print(f"linear: y = {weights[0]:g}*x0 + {weights[1]:g}*x1 + {bias:g}, exact on 20 test points")
