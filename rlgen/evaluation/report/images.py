"""Pictures of levels and episodes as PNG and GIF."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def image_bytes(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A picture of a level as PNG."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="PNG", optimize=True)
    return out.getvalue()


def gif_bytes(
    frames: UInt8[np.ndarray, "T H W 3"], fps: float | int = 10, hold: float | int = 1
) -> bytes:
    """An endless GIF; exact while the frames have at most 256 colours between them.

    Args:
        frames: an episode, one frame a step.
        fps: frames a second, at most 50: browsers slow down faster ones.
        hold: seconds that the last frame stays.

    Raises:
        ValueError: not uint8 [T, H, W, 3] with a frame at least, or fps outside (0, 50].
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(
            f"frames are {frames.dtype}{list(frames.shape)}; they must be uint8[T, H, W, 3]"
        )
    if not 0 < fps <= 50:
        raise ValueError(f"fps={fps} must be above 0 and at most 50, what browsers show")
    packed = frames.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    seen = np.zeros(1 << 24, bool)  # a table is several times faster than sorting every pixel
    seen[packed] = True
    colours = np.flatnonzero(seen).astype(np.uint32)
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
