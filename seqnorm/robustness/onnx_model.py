"""A model in an ONNX file, which, unlike a pickle, runs no code of its own when it is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.errors import InputError, MissingFileError

Predict = Callable[[NDArray[np.float32]], NDArray[Any]]


def load_onnx(path: Path) -> Predict:
    """Open a model that takes one-hot DNA of shape (N, 4, width) and gives one score a sequence.

    Parameters
    ----------
    path : Path
        The file, as ``torch.onnx.export`` writes it.

    Returns
    -------
    callable
        From float32 arrays of shape (N, 4, width) to the first output.

    Raises
    ------
    InputError
        If onnxruntime is not installed, the file is no model, or it wants several inputs.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise InputError(f"{path}: reading it needs onnxruntime: pip install onnxruntime") from None
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file: check the path")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        what = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not an ONNX model ({what}): export it again") from None
    inputs = [entry.name for entry in session.get_inputs()]
    if len(inputs) != 1:
        raise InputError(f"{path}: takes {len(inputs)} inputs ({', '.join(inputs)}), not one")

    def predict(batch: NDArray[np.float32]) -> NDArray[Any]:
        try:
            found: NDArray[Any] = session.run(None, {inputs[0]: batch})[0]
        except Exception as error:  # as above
            what = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: cannot score windows of {batch.shape} ({what})") from None
        return found

    return predict
