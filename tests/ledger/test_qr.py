"""QR codes: what is written is read again, from pictures as people take them; and what is no code, or too much of one, is said."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from ledger import qr
from ledger.errors import QrError
from ledger.locator import VERIFY_PAGE

LOCATION = f"{VERIFY_PAGE}#hf:org/mixtral-tiny-6e-GGUF@sha256:{'0123456789abcdef' * 4}"
PROOF = f"{VERIFY_PAGE}#proof:{'0123456789' * 256}"
"""As long as that of an entry among a million."""


def picture(text: str) -> Image.Image:
    with Image.open(BytesIO(qr.png(text))) as opened:
        return opened.convert("L")


def saved(image: Image.Image, path: Path, quality: int = 75) -> Path:
    image.save(path, quality=quality)
    return path


# --- writing -------------------------------------------------------------------------------------------------------------------------


def test_a_code_has_a_quiet_zone_and_prints_well() -> None:
    """Four white modules on each side, black and white alone, 600 pixels or more."""
    for text in (LOCATION, PROOF):
        image = picture(text)
        modules = qr.encode(text).symbol_size(border=qr.QUIET_MODULES)[0]
        scale = image.width // modules
        assert image.width == image.height == scale * modules >= 600
        assert {number for _, number in image.getcolors() or ()} == {0, 255}
        border = qr.QUIET_MODULES * scale
        assert image.crop((0, 0, image.width, border)).getextrema() == (255, 255)
        assert image.crop((0, 0, border, image.height)).getextrema() == (255, 255)


def test_the_location_of_a_model_is_a_small_code() -> None:
    """Level M, at most 53 modules wide."""
    code = qr.encode(LOCATION)
    assert code.error == "M"
    assert code.symbol_size(border=0)[0] <= 53


def test_digits_at_the_end_take_less_room() -> None:
    """Two segments: as one text of bytes the same would be wider by 40 modules or not fit at all."""
    code = qr.encode(PROOF)
    assert (code.error, code.version) == ("M", 27)
    assert qr.encode(PROOF.replace("9", "a")).symbol_size(border=0)[0] >= code.symbol_size(border=0)[0] + 40


def test_the_level_falls_to_l_before_a_text_is_refused() -> None:
    """2,331 bytes fit at M, 2,953 at L, no more in any code."""
    assert qr.encode("a" * 2331).error == "M"
    assert qr.encode("a" * 2953).error == "L"
    with pytest.raises(QrError, match="2,954 characters fits no QR code"):
        qr.png("a" * 2954)
    with pytest.raises(QrError, match="empty"):
        qr.png("")


@settings(max_examples=25)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), st.integers(0, 10**40))
def test_every_text_comes_back(start: str, digits: int) -> None:
    """With digits at its end or not, with any character."""
    import zxingcpp

    for text in (start, start + str(digits)):
        (found,) = zxingcpp.read_barcodes(picture(text))
        assert bytes(found.bytes) == text.encode()


# --- reading -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [LOCATION, PROOF], ids=["location", "proof"])
def test_codes_are_read_from_pictures_as_people_take_them(text: str, tmp_path: Path) -> None:
    """Scaled, turned, upside down, blurred, as a bad JPEG, inverted, transparent, small in a large photo, in colour."""
    plain = picture(text)
    side = plain.width
    photo = Image.new("L", (2000, 1500), 170)
    photo.paste(plain.rotate(8, expand=True, fillcolor=170).resize((1300, 1300)), (350, 100))
    glass = Image.new("RGBA", plain.size, (0, 0, 0, 0))
    glass.paste((0, 0, 0, 255), mask=plain.point(lambda value: 255 - value))
    versions = {
        "plain.png": plain,
        "half.png": plain.resize((side // 2, side // 2)),
        "odd.png": plain.resize((side * 7 // 10, side * 7 // 10), Image.Resampling.BILINEAR),
        "turned.png": plain.rotate(17, expand=True, fillcolor=255),
        "quarter.png": plain.rotate(90, expand=True),
        "head.png": plain.rotate(180),
        "blurred.png": plain.filter(ImageFilter.GaussianBlur(1.6)),
        "inverted.png": plain.point(lambda value: 255 - value),
        "colour.webp": plain.convert("RGB"),
        "glass.png": glass,
        "grey.png": Image.merge("LA", (Image.new("L", plain.size), glass.getchannel("A"))),
        "two.png": plain.convert("1"),
        "photo.png": photo,
    }
    for name, image in versions.items():
        assert qr.read(saved(image, tmp_path / name)) == (text,), name
    assert qr.read(saved(photo.filter(ImageFilter.GaussianBlur(0.8)), tmp_path / "photo.jpg", quality=35)) == (text,)


def test_several_codes_are_several_texts(tmp_path: Path) -> None:
    """`read` gives each once; `read_one` refuses, and shows what each says."""
    both = Image.new("L", (2400, 1000), 255)
    for number, text in enumerate((LOCATION, PROOF)):
        both.paste(picture(text), (number * 1200 + 20, 20))
    path = saved(both, tmp_path / "both.png")
    assert qr.read(path) == tuple(sorted((LOCATION, PROOF)))
    with pytest.raises(QrError, match=r"2 different QR codes .*#hf:org.*; cut out"):
        qr.read_one(path)
    both.paste(picture(LOCATION), (1220, 20))
    assert qr.read_one(saved(both, path)) == LOCATION


def test_a_picture_without_a_code_says_so(tmp_path: Path) -> None:
    """A blank one, and one whose code was cut through."""
    cut = picture(LOCATION)
    cut.paste(255, (0, 0, cut.width // 2, cut.height))
    for name, image in (("blank.png", Image.new("L", (300, 300), 200)), ("cut.png", cut)):
        with pytest.raises(QrError, match=rf"{name}: no QR code was found"):
            qr.read(saved(image, tmp_path / name))


def test_a_code_that_holds_no_text_is_passed_over(tmp_path: Path) -> None:
    """Bytes that are not UTF-8."""
    import segno

    segno.make_qr(b"\xff\xfe\x00").save(str(tmp_path / "bytes.png"), scale=8)
    with pytest.raises(QrError, match="no QR code was found"):
        qr.read(tmp_path / "bytes.png")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is of that size, and would unpack to it."""
    rows = zlib.compress(bytes(10**6))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (8_000, 8_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_that_unpacks_to_gigabytes_is_refused_unread(width: int, height: int, tmp_path: Path) -> None:
    """By the size in its header."""
    (tmp_path / "bomb.png").write_bytes(bomb(width, height))
    with pytest.raises(QrError, match=r"pixels|too large"):
        qr.read(tmp_path / "bomb.png")


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    """A picture beyond the bound is refused by its size."""
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(qr.MAX_PICTURE_BYTES + 1)
    with pytest.raises(QrError, match="at most"):
        qr.read(tmp_path / "large.png")


def test_what_is_no_picture_is_said(tmp_path: Path) -> None:
    """Text, a truncated picture, nothing, a folder, nowhere; and kinds of files that Pillow would run a program for."""
    whole = qr.png(LOCATION)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"
    for name, data in {
        "text.png": b"hello",
        "half.png": whole[: len(whole) // 2],
        "empty.png": b"",
        "ghost.eps": postscript,
        "x.tiff": b"II*\0",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(QrError, match=r"not a picture|cannot be read"):
            qr.read(tmp_path / name)
    for place in (tmp_path, tmp_path / "nowhere.png"):
        with pytest.raises(QrError, match="cannot be read"):
            qr.read(place)


def test_pictures_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    """Whatever they are called."""
    image = picture(LOCATION)
    for kind in ("png", "jpeg", "webp", "gif", "bmp"):
        assert qr.is_picture(saved(image, tmp_path / f"x.{kind}"))
    (tmp_path / "x.png").write_bytes(b"c2sp.org/tlog-proof@v1\n")
    assert not qr.is_picture(tmp_path / "x.png")
