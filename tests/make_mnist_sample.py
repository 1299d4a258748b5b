"""Makes the sample of MNIST that ships inside the package, from the full files: `python tests/make_mnist_sample.py`."""

from pathlib import Path

import numpy as np

from flowlab.datasets import mnist

A_CLASS = {"train": 500, "test": 100}
SEED = 20


def make_sample() -> dict[str, np.ndarray]:
    """For each split the rows that are drawn, as many of each digit, in ascending order; their images and labels."""
    random = np.random.RandomState(SEED)  # the one generator whose stream NumPy promises to keep
    sample = {}
    for split, a_class in A_CLASS.items():
        images, labels = (each.numpy() for each in mnist.load(split))
        chosen = [random.permutation(np.flatnonzero(labels == digit))[:a_class] for digit in range(10)]
        rows = np.sort(np.concatenate(chosen))
        sample[f"{split}_rows"] = rows.astype(np.uint16)
        sample[f"{split}_images"] = images[rows]
        sample[f"{split}_labels"] = labels[rows].astype(np.uint8)
    return sample


if __name__ == "__main__":
    np.savez_compressed(Path(mnist.__file__).with_name("mnist_sample.npz"), **make_sample())
