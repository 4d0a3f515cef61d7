"""volatility: from ten OHLC candles, the standard deviation of the next ten log returns.

The model for calls with price history. It shows the plumbing and does not predict
markets: its "prices" are the brightness along the lines of two photographs, because
scikit-learn ships no market data. Brightness has what matters for an example, calm
and busy stretches that last for a while.

The graph works on log prices relative to the last close, in units of the window's
own mean high-low range, so neither the price unit nor the general level of
volatility matters.
"""

import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from sklearn.datasets import load_sample_image
from torch import nn

import common

PATH = pathlib.Path(__file__).resolve().with_name("volatility.onnx")
PIXELS_PER_CANDLE = 4
WINDOW = 10  # candles seen, and returns foretold
LOG_PRICE_SPAN = 0.1  # log price between a black and a white pixel: about 10 %
LEAST = 1e-4  # a volatility floor: parts of a sky are perfectly flat


class Volatility(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(WINDOW * 4, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1)
        )

    def forward(self, candles):
        last_close = candles[:, 9:10, 3:4]
        logs = (candles / last_close).log()
        ranges = logs[:, :, 1:2] - logs[:, :, 2:3]  # log(high / low), [batch, 10, 1]
        scale = ranges.mean(dim=1, keepdim=True) + LEAST
        factor = self.layers(torch.flatten(logs / scale, 1))
        # exp keeps the answer positive; tanh bounds it to e^-2..e^2 times the range.
        return torch.flatten(scale, 1) * (2 * factor.tanh()).exp()


def windows(photograph):
    """Candles [n, 10, 4] and the volatility [n, 1] after each, line by line."""
    luminance = load_sample_image(photograph) @ [0.299, 0.587, 0.114]
    prices = 100 * np.exp(LOG_PRICE_SPAN * luminance / 255)
    count = prices.shape[1] // PIXELS_PER_CANDLE
    ticks = prices[:, : count * PIXELS_PER_CANDLE].reshape(-1, count, PIXELS_PER_CANDLE)
    candles = np.stack([ticks[..., 0], ticks.max(-1), ticks.min(-1), ticks[..., -1]], axis=-1)
    returns = np.diff(np.log(candles[..., 3]), axis=1)
    inputs, targets = [], []
    # Every fourth line (neighbours are near copies), windows that overlap by half.
    for line in range(0, len(candles), 4):
        for start in range(0, count - 2 * WINDOW, WINDOW // 2):
            end = start + WINDOW
            inputs.append(candles[line, start:end])
            targets.append([returns[line, end - 1 : end - 1 + WINDOW].std()])
    return np.float32(inputs), np.float32(targets)


def log_distance(answer, target):
    return (torch.log(answer) - torch.log(target + LEAST)).abs().mean()


common.deterministic(seed=0)
training, training_targets = windows("china.jpg")
test, test_targets = windows("flower.jpg")
model = Volatility()
common.train(model, training, training_targets, log_distance, epochs=40, batch=128)
common.export(model, test[:2], PATH, input_name="candles", output_names=["volatility"])

reference = common.Reference(PATH)
answers = reference(test)["volatility"]
assert answers.shape == test_targets.shape and (answers > 0).all()
# A price in cents or in wei is the same price, up to rounding.
for unit in (0.01, 1e18):
    assert np.allclose(reference(test * np.float32(unit))["volatility"], answers, rtol=1e-3)


def quality(answers):
    """Correlation of the logarithms, and the typical factor by which an answer is off."""
    a, t = np.log(answers + 1e-12).ravel(), np.log(test_targets + LEAST).ravel()
    return np.corrcoef(a, t)[0, 1], np.exp(np.median(np.abs(a - t)))


past = np.diff(np.log(test[:, :, 3]), axis=1).std(axis=1, keepdims=True) + LEAST
for name, answer in [("model", answers), ("last ten candles' own", past)]:
    correlation, factor = quality(answer)
    print(f"volatility: {name}: correlation {correlation:.3f}, median error factor {factor:.2f}")
common.record_samples(PATH, test[np.random.default_rng(0).permutation(len(test))[:20]])
