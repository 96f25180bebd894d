"""Computational sequences, the files of CMU's multimodal data sets (``.csd``): HDF5 with values over time.

The one group at the root is named after what the file holds. Its group ``data`` has a group for each video, with
``features`` (segments, values) and ``intervals`` (segments, 2), the begin and the end of each segment in seconds
(Zadeh et al. 2018, "Multi-attention Recurrent Network for Human Communication Comprehension"; github.com/
CMU-MultiComp-Lab/CMU-MultimodalSDK).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vislang.data.problems import DataError
from vislang.errors import needs
from vislang.files import must_be_file


class Segments(NamedTuple):
    """What a file holds about a video.

    Attributes:
        features: (segments, values) numbers, or texts as bytes.
        intervals: (segments, 2) begin and end in seconds.
    """

    features: np.ndarray
    intervals: np.ndarray


def read_csd(path: Path) -> dict[str, Segments]:
    """The segments of each video, by its id, in the order of ids.

    Raises:
        UserError: h5py is not installed.
        DataError: the file is missing, damaged or no computational sequence; the message names the video.
    """
    needs("h5py", "data", "a .csd file")
    import h5py

    must_be_file(path, "the official file", error=DataError)
    try:
        with h5py.File(path, "r") as file:
            roots = list(file.values())
            data = roots[0].get("data") if len(roots) == 1 and isinstance(roots[0], h5py.Group) else None
            if not isinstance(data, h5py.Group) or not len(data):
                raise DataError(f"{path}: not a computational sequence: it has no group of videos. Download it again.")
            return {video: _segments(path, video, group) for video, group in data.items()}
    except OSError as error:
        raise DataError(f"{path}: not an HDF5 file, or cut off ({error}). Download it again.") from None


def _segments(path: Path, video: str, group: Any) -> Segments:
    try:
        found = Segments(group["features"][:], group["intervals"][:].astype(float))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(f"{path}, {video}: has no features and intervals. Download the file again.") from None
    features, intervals = found
    if features.ndim != 2 or intervals.shape != (len(features), 2):
        raise DataError(
            f"{path}, {video}: features of the shape {features.shape} and intervals of the shape {intervals.shape} do "
            "not belong together. Download the file again."
        )
    if not np.isfinite(intervals).all() or (intervals[:, 0] > intervals[:, 1]).any():
        raise DataError(f"{path}, {video}: an interval ends before it begins, or is not a number.")
    return found
