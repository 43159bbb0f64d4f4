"""QR codes: a text into a picture that prints and scans well, and the texts in a picture, wherever it came from.

A text that ends in many digits, as an offline proof does, is written as two segments, so that its end takes 3.3 bits a character instead
of 8. Pictures of others are bounded before they are decoded.

>>> png("https://example.com/#hf:org/name")[:4]
b'\\x89PNG'

Source: ISO/IEC 18004; docs/formats/qr.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ledger.errors import QrError

if TYPE_CHECKING:
    from PIL.Image import Image
    from segno import QRCode

QUIET_MODULES = 4
"""The white border on each side, in modules; readers need it to find the code."""

MAX_PICTURE_BYTES = 32 * 2**20
MAX_PIXELS = 50 * 10**6
"""More is not decoded: a photo of a phone has 12 to 48 million."""

MAX_SIDE = 30_000
"""Pixels in one direction: twice as many is what zxing-cpp takes."""

MAX_CODES = 8
"""A picture with more codes is refused: what is not read is not judged."""

_SMALL_PIXELS = 4 * 10**6
_PIXELS = 900
"""About the width of a picture: 7.6 cm at 300 dots per inch, and wide enough on a screen."""

_DIGITS = re.compile(r"[0-9]{20,}\Z")
"""The end of a text for which a second segment pays."""

_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM")
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def png(text: str) -> bytes:
    """A PNG of the QR code of a text: black on white, about 900 pixels wide, with its quiet zone.

    The error correction level is M (15 % of the code may be lost), and L (7 %) only when M does not fit.

    Raises:
        QrError: it fits no QR code (at most 2,953 bytes, or 7,089 digits).
    """
    code = encode(text)
    picture = BytesIO()
    modules = code.symbol_size(border=QUIET_MODULES)[0]
    code.save(picture, kind="png", scale=max(4, round(_PIXELS / modules)), border=QUIET_MODULES)
    return picture.getvalue()


def encode(text: str) -> QRCode:
    """The smallest code of a text; `version` (1 to 40: 17 + 4 * version modules wide) and `error` say what it became.

    Raises:
        QrError: it fits none.
    """
    import segno
    from segno.encoder import DataOverflowError

    if not text:
        raise QrError("an empty text makes no QR code")
    tail = _DIGITS.search(text)
    segments = [part for part in (text[: tail.start()], tail[0]) if part] if tail is not None else [text]
    for level in ("m", "l"):
        try:
            return segno.make_qr(cast(Any, segments), error=level, boost_error=False, encoding="utf-8")
        except DataOverflowError:
            continue
    raise QrError(
        f"a text of {len(text):,} characters fits no QR code, which holds 2,953 bytes, or 7,089 digits; give it as a file instead"
    )


def is_picture(path: Path) -> bool:
    """Whether a file starts like a picture of a kind that `read` knows.

    Raises:
        QrError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise QrError(f"{path}: cannot be read: {error.strerror}") from error
    return head.startswith(_STARTS) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def read(path: Path) -> tuple[str, ...]:
    """The texts of the QR codes in a picture, each once, sorted; at least one.

    Bytes that are not UTF-8 are no text and are passed over.

    Raises:
        QrError: it is no picture, it is too large, or it shows no readable code; and why.
    """
    texts = _texts(path)
    if not texts:
        raise QrError(
            f"{path}: no QR code was found in the picture; take it straight from above, in light, with the white border around the code"
        )
    return texts


def read_one(path: Path) -> str:
    """The text of the only QR code in a picture.

    Raises:
        QrError: as `read`; or there are several codes, with what each says.
    """
    texts = read(path)
    if len(texts) > 1:
        shown = "; ".join(repr(text if len(text) <= 60 else text[:60] + "..") for text in texts)
        raise QrError(f"{path}: the picture shows {len(texts)} different QR codes ({shown}); cut out the one that is meant")
    return texts[0]


def _on_white(picture: Image) -> Image:
    """Grey, with white where it is transparent."""
    if not picture.has_transparency_data:
        return picture.convert("L")
    from PIL import Image

    grey, opacity = picture.convert("LA").split()
    return Image.composite(grey, Image.new("L", grey.size, 255), opacity)


def _texts(path: Path) -> tuple[str, ...]:
    import zxingcpp
    from PIL import Image, UnidentifiedImageError

    try:
        size = path.stat().st_size
        if size > MAX_PICTURE_BYTES:
            raise QrError(f"{path}: a picture of {size:,} bytes; at most {MAX_PICTURE_BYTES:,} are read")
        with Image.open(path, formats=_FORMATS) as picture:  # reads the header only
            width, height = picture.size
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                most = f"at most {MAX_PIXELS:,} pixels are read, {MAX_SIDE:,} in one direction"
                raise QrError(f"{path}: a picture of {width:,} x {height:,} pixels; {most}: make it smaller")
            picture.load()
            grey = _on_white(picture)
    except UnidentifiedImageError as error:
        raise QrError(f"{path}: not a picture that can be read (known: {', '.join(_FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise QrError(f"{path}: the picture is too large: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files
        raise QrError(f"{path}: the picture cannot be read: {error}") from error
    for attempt in _attempts(grey):
        found: set[str] = set()
        codes = zxingcpp.read_barcodes(attempt, formats=zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode))
        if len(codes) > MAX_CODES:
            raise QrError(f"{path}: the picture shows {len(codes)} codes; at most {MAX_CODES} are read: cut out those that are meant")
        for code in codes:
            try:
                found.add(bytes(code.bytes).decode("utf-8"))
            except UnicodeDecodeError:
                continue
        if found:
            return tuple(sorted(found))
    return ()


def _attempts(grey: Image) -> Iterator[Image]:
    """The picture; then sharpened; then twice as large too, unless it is large already: dense codes on blurred photos need it."""
    from PIL import Image, ImageFilter

    yield grey
    yield grey.filter(ImageFilter.UnsharpMask(2, 150, 0))
    if grey.width * grey.height <= _SMALL_PIXELS:
        doubled = grey.resize((2 * grey.width, 2 * grey.height), Image.Resampling.BICUBIC)
        yield doubled.filter(ImageFilter.UnsharpMask(3, 200, 0))
