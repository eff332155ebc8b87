"""Pictures of 8 bits a channel as arrays of bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from byzopt.errors import InvalidInput, require

ENDS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
GREY = ("1", "L", "LA")
MODES = (*GREY, "P", "RGB", "RGBA", "CMYK")  # Pillow's names of what has at most 8 bits a channel


def picture(path: Path, size: int) -> np.ndarray[Any, Any]:
    """A picture in grey `[height, width]`, or in colours `[height, width, 3]`, as bytes, without its
    transparency; brought to `size` x `size` pixels where that is not 0.

    Errors: `InvalidInput` for files that are no whole pictures, or have more than 8 bits a channel.
    """
    from PIL import Image

    require(path.suffix.lower() in ENDS, "A file among images", f"end in {', '.join(ENDS)}", str(path))
    try:
        with Image.open(path) as image:
            _check_depth(path, image)
            plain = image.convert("L" if image.mode in GREY else "RGB")
            scaled = plain.resize((size, size), Image.Resampling.BILINEAR) if size else plain
            return np.asarray(scaled)
    except InvalidInput:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"Image {path} should be whole. Found: {error}.") from None


def _check_depth(path: Path, image: Any) -> None:
    """Raise `InvalidInput` for what 8 bits a channel cannot hold.

    Pillow opens colours of 16 bits as "RGB", already cut to 8; what the file holds is in `tile` until then.
    """
    stored = " ".join(str(tile[3]) for tile in image.tile[:1])
    deep = image.format in ("PNG", "TIFF") and ";16" in stored
    found = f"mode {image.mode!r}{' with 16 bits a channel' if deep else ''}"
    remedy = "Save such images in a .npz file, whose numbers are kept as they are."
    fits = image.mode in MODES and not deep
    require(fits, f"Image {path}", f"have 8 bits a channel (mode {', '.join(MODES)})", found, remedy)
