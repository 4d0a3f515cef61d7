"""digits-cnn: reads a handwritten digit with two convolutions.

The model with an image-shaped input and with two outputs of different types:
the ten probabilities as float32 and the most probable digit as int64.
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

PATH = pathlib.Path(__file__).resolve().with_name("digits-cnn.onnx")


class DigitsCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 10),
        )

    def forward(self, image):
        logits = self.layers(image / 16)
        if self.training:
            return logits
        probabilities = logits.softmax(dim=1)
        # From the probabilities, so that the two outputs never contradict each other.
        return probabilities, probabilities.argmax(dim=1)


common.deterministic(seed=0)
images, digits = load_digits(return_X_y=True)
images = images.astype(np.float32).reshape(-1, 1, 8, 8)
training, test, training_digits, test_digits = train_test_split(
    images, digits, test_size=0.25, random_state=0, stratify=digits
)

model = DigitsCnn()
common.train(model, training, training_digits, nn.functional.cross_entropy, epochs=30)
common.export(model, test[:2], PATH, input_name="image", output_names=["probabilities", "digit"])

accuracy = (common.Reference(PATH)(test)["digit"] == test_digits).mean()
assert accuracy >= 0.97, accuracy
common.record_samples(PATH, test)
print(f"digits-cnn: accuracy {accuracy:.4f} on {len(test)} test images")
