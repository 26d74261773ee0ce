"""Turns samples of any depth and number of channels the way EXIF's orientation says."""

from __future__ import annotations

import cv2
import numpy as np

from fusebus.convert.picture import Samples


def upright(samples: Samples, orientation: int) -> Samples:
    """The picture as a person shall see it; the eight cases are those of EXIF 2.3, tag 0x0112."""
    match orientation:
        case 2:
            turned = cv2.flip(samples, 1)
        case 3:
            turned = cv2.rotate(samples, cv2.ROTATE_180)
        case 4:
            turned = cv2.flip(samples, 0)
        case 5:
            turned = cv2.transpose(samples)
        case 6:
            turned = cv2.rotate(samples, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            turned = cv2.rotate(cv2.transpose(samples), cv2.ROTATE_180)
        case 8:
            turned = cv2.rotate(samples, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            return samples
    return np.asarray(turned).reshape(*turned.shape[:2], samples.shape[2])  # OpenCV drops a single channel
