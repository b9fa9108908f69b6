"""The usual Keras notebook for CIFAR-10, the rival of `classic`; runs in an environment of its own with TensorFlow.

Conv64, pool, Conv128, pool, Conv128 (3 × 3, valid, ReLU), dropout 0.5, Dense 256, Dense 128 (ReLU), Dense 10; Adam,
batch 32, pixels / 255, no augmentation, at most 50 epochs, early stopping on the validation loss with patience 5 and
the best weights restored.

    python keras_notebook.py IMAGES.npz SEED [EPOCHS]

IMAGES.npz holds x_train, y_train, x_validation, y_validation: uint8 (n, 32, 32, 3) and int64 (n,). Prints one JSON
object.
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers


def main(path: str, seed: int, epochs: int) -> None:
    """Train once and print what came of it."""
    keras.utils.set_random_seed(seed)
    images = np.load(path)
    x_train = images["x_train"].astype("float32") / 255
    x_validation = images["x_validation"].astype("float32") / 255
    model = keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(128, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(128, 3, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(256, activation="relu"),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    started = time.perf_counter()
    history = model.fit(
        x_train,
        images["y_train"],
        batch_size=32,
        epochs=epochs,
        validation_data=(x_validation, images["y_validation"]),
        callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=5, restore_best_weights=True)],
        verbose=2,
    )
    seconds = time.perf_counter() - started
    losses = history.history["val_loss"]
    best = int(np.argmin(losses))
    # Keras counts in float32; as a whole number over all images the share is exact, so that a tie is a tie.
    right = round(float(history.history["val_accuracy"][best]) * len(x_validation))
    result = {
        "seconds": seconds,
        "epochs": len(losses),
        "best_epoch": best + 1,
        "validation_accuracy": right / len(x_validation),
        "versions": {"keras": keras.__version__, "tensorflow": __import__("tensorflow").__version__},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 50)
