"""Encode pictures of levels as PNG, and recorded episodes as GIF."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def image_bytes(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """Encode a picture of a level as PNG."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="PNG", optimize=True)
    return out.getvalue()


def gif_bytes(
    frames: UInt8[np.ndarray, "T H W 3"], fps: float | int = 10, hold: float | int = 1
) -> bytes:
    """Encode frames as an endlessly looping GIF.

    If the frames together have at most 256 colours, the colours are exact. Otherwise they are
    quantised to a common palette.

    Args:
        frames: Episode, one frame per step.
        fps: Frames per second, at most 50, because browsers slow down faster GIFs.
        hold: Duration of the last frame, in seconds.

    Raises:
        ValueError: `frames` is not a non-empty uint8 array [T, H, W, 3], or `fps` is outside
            (0, 50].
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(
            f"frames are {frames.dtype}{list(frames.shape)}; they must be uint8[T, H, W, 3]"
        )
    if not 0 < fps <= 50:
        raise ValueError(
            f"fps={fps} must be above 0 and at most 50; browsers slow down faster GIFs"
        )
    # Pack each RGB triple into one 24-bit number, [T, H, W].
    packed = frames.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    seen = np.zeros(1 << 24, bool)  # this lookup table is several times faster than `np.unique`
    seen[packed] = True
    colours = np.flatnonzero(seen).astype(np.uint32)
    # The cumulative number of used colours maps each packed colour to its index in `colours`.
    index = (np.cumsum(seen, dtype=np.uint32) - 1)[packed]
    if len(colours) <= 256:
        palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1).astype(np.uint8)
        images = [Image.fromarray(one) for one in index.astype(np.uint8)]
        for image in images:
            image.putpalette(palette.tobytes())
    else:
        common = Image.fromarray(frames.reshape(-1, *frames.shape[2:])).quantize(256)
        images = [Image.fromarray(one).quantize(palette=common) for one in frames]
    duration = [round(1000 / fps)] * len(images)
    duration[-1] += round(1000 * hold)
    out = io.BytesIO()
    options = {"duration": duration, "loop": 0, "optimize": False, "disposal": 1}
    images[0].save(out, format="GIF", save_all=True, append_images=images[1:], **options)
    return out.getvalue()
