"""digits-mlp: reads a handwritten digit with a multilayer perceptron (64-64-32-10).

The classifier to call from a contract: 64 pixels in as scikit-learn ships them
(0..16, row by row), ten probabilities out. The graph itself scales the pixels.
"""

import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import common

PATH = pathlib.Path(__file__).resolve().with_name("digits-mlp.onnx")


class DigitsMlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
        )

    def logits(self, image):
        return self.layers(image / 16)

    def forward(self, image):
        # Training wants the logits: cross-entropy has its own, stabler softmax.
        return self.logits(image) if self.training else self.logits(image).softmax(dim=1)


common.deterministic(seed=0)
images, digits = load_digits(return_X_y=True)
images = images.astype(np.float32)
training, test, training_digits, test_digits = train_test_split(
    images, digits, test_size=0.25, random_state=0, stratify=digits
)

model = DigitsMlp()
common.train(model, training, training_digits, nn.functional.cross_entropy, epochs=60)
common.export(model, test[:2], PATH, input_name="image", output_names=["probabilities"])

answers = common.Reference(PATH)(test)["probabilities"].argmax(axis=1)
accuracy = (answers == test_digits).mean()
assert accuracy >= 0.96, accuracy
common.record_samples(PATH, test)
print(f"digits-mlp: accuracy {accuracy:.4f} on {len(test)} test images")
