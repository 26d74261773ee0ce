"""Why bytes from outside are no usable picture: four errors, each with a short code."""


class ImageError(ValueError):
    """Base: the bytes cannot be used. `reason` is the code that travels in messages."""

    reason = "not_an_image"


class NotAnImage(ImageError):
    """Neither JPEG nor PNG nor WebP, whatever name or content type claims."""

    reason = "not_an_image"


class TooManyPixels(ImageError):
    """More pixels than formats.MAX_PIXELS: refused before anything is decoded."""

    reason = "too_many_pixels"


class Damaged(ImageError):
    """Starts like an image, but its structure or its pixel data is broken, cut short, or not what the format allows."""

    reason = "damaged"


class TooComplex(Damaged):
    """More segments, chunks or scans than any camera writes: an attack on whoever reads them."""

    reason = "too_complex"
