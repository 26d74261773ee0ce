"""Colours that the targets don't have become theirs, and samples get the profile that is true of them."""

from __future__ import annotations

import io

import numpy as np
import pyvips
from PIL import Image, ImageCms

from fusebus.convert import profiles
from fusebus.convert.picture import Picture, Samples


def managed(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Into sRGB through the embedded profile; without a usable one as Pillow converts."""
    srgb = ImageCms.createProfile("sRGB")
    own: ImageCms.ImageCmsProfile | None = None
    try:
        if image.mode == "LAB":
            own = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        elif profiles.space(profile) == image.mode:
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        if own is not None:
            turned = ImageCms.profileToProfile(
                image,
                own,
                srgb,
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            if turned is not None:
                return turned
    except (ImageCms.PyCMSError, OSError):
        pass
    return image.convert("RGB")


def of_cmyk(inks: Samples, profile: bytes | None) -> Samples:
    """RGB of the same depth: by `managed`, and of 16 bits in the same way."""
    if inks.itemsize == 1:
        return np.asarray(managed(Image.fromarray(inks, "CMYK"), profile))
    if profiles.space(profile) == "CMYK":
        try:
            return _through(inks, profile)
        except pyvips.Error:  # of the profile, as above
            pass
    shown = np.empty((*inks.shape[:2], 3), np.uint16)
    white = 65_535 - inks[:, :, 3].astype(np.uint32)
    for colour in range(3):
        shown[:, :, colour] = (white * (65_535 - inks[:, :, colour].astype(np.uint32)) + 32_767) // 65_535
    return shown


def _through(inks: Samples, profile: bytes | None) -> Samples:
    image = pyvips.Image.new_from_array(inks, interpretation="cmyk").copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    shown = image.icc_transform("srgb", embedded=True, depth=16, intent="relative", black_point_compensation=True)
    return np.asarray(shown.numpy())


def of_deep_lab(image: pyvips.Image) -> Samples:
    """RGB of 16 bits from libvips's 16-bit CIELAB, whose white is D50 as that of ICC profiles."""
    return np.asarray(image.colourspace("lab").icc_export(output_profile="srgb", depth=16, intent="relative").numpy())


def described(samples: Samples, profile: bytes | None, found: str, *, frames: int = 1) -> Picture:
    """Grey or RGB with the profile where it is true of them; grey in an RGB profile becomes RGB, so that it is."""
    space, channels = profiles.space(profile), samples.shape[2]
    if channels < 3 and space == "RGB":
        samples = np.ascontiguousarray(samples[:, :, (0, 0, 0, 1)[: channels + 2]])
        channels += 2
    return Picture(
        samples=samples,
        format=found,
        icc=profile if space == ("GRAY" if channels < 3 else "RGB") else None,
        frames=frames,
    )
