"""The decoder: every format as Pillow reads it, sizes, orientations, refusals, bombs and damaged files."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tfapp.data.image_decoding import ImageDecoder
from tfapp.data.image_headers import FORMATS, header_of, problem_text
from tfapp.data.image_inspection import inspect_images
from tfapp.data.image_segments import exif_orientation
from tfapp.errors import ConfigError

HEIGHT, WIDTH = 24, 32


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def smooth(height=HEIGHT, width=WIDTH, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def with_orientation(image, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", quality=95, exif=exif, **options)


def png(width, height, *, depth=8, data=b""):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def bmp(width, height, *, bits=24, compression=0, palette=b"", pixels=b"", header_size=40):
    start = 14 + header_size + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
    info = struct.pack(
        "<IiiHHIIiiII", header_size, width, height, 1, bits, compression, 0, 0, 0, len(palette) // 4, 0
    )
    return head + info + palette + pixels


def segments(contents):
    """Places of the segments of a JPEG file up to its end, as (marker, begin, end)."""
    place, found = 2, []
    while contents[place + 1] != 0xD9:
        marker, end = contents[place + 1], place + 2 + int.from_bytes(contents[place + 2 : place + 4], "big")
        while marker == 0xDA and not (
            contents[end] == 0xFF and contents[end + 1] not in (0, *range(0xD0, 0xD8))
        ):
            end += 1
        found.append((marker, place, end))
        place = end
    return found


def resized_sof(contents, width, height):
    """A JPEG file that claims another size."""
    place = next(begin for marker, begin, _ in segments(contents) if marker in (0xC0, 0xC2))
    return contents[: place + 5] + struct.pack(">HH", height, width) + contents[place + 9 :]


def repeated_scan(times):
    """A progressive JPEG file of 512 x 512 pixels whose last scan is there again and again."""
    contents = encoded(Image.new("RGB", (512, 512), "grey"), "JPEG", progressive=True)
    begin, end = [place[1:] for place in segments(contents) if place[0] == 0xDA][-1]
    return contents[:end] + contents[begin:end] * times + contents[end:]


def exif(body, *, kind=b"Exif\0\0"):
    """A small JPEG file whose APP1 segment holds these bytes."""
    contents = encoded(smooth(), "JPEG")
    return (
        contents[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(kind) + len(body)) + kind + body + contents[2:]
    )


def tiff(orientation=6, *, order="<", offset=8, count=1, tag=0x0112, kind=3):
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", offset)
    value = struct.pack(order + "HH", orientation, 0)
    return (
        head + struct.pack(order + "H", count) + struct.pack(order + "HHI", tag, kind, 1) + value + b"\0" * 4
    )


PICTURE = smooth()
FILES = {
    "JPEG": encoded(PICTURE, "JPEG", quality=90),
    "progressive JPEG": encoded(PICTURE, "JPEG", progressive=True),
    "grey JPEG": encoded(PICTURE.convert("L"), "JPEG"),
    "CMYK JPEG": encoded(PICTURE.convert("CMYK"), "JPEG"),
    "PNG": encoded(PICTURE, "PNG"),
    "grey PNG": encoded(PICTURE.convert("L"), "PNG"),
    "1-bit PNG": encoded(PICTURE.convert("1"), "PNG"),
    "palette PNG": encoded(PICTURE.convert("P"), "PNG"),
    "RGBA PNG": encoded(Image.merge("RGBA", (*PICTURE.split(), PICTURE.convert("L"))), "PNG"),
    "grey PNG with alpha": encoded(PICTURE.convert("LA"), "PNG"),
    "BMP": encoded(PICTURE, "BMP"),
    "grey BMP": encoded(PICTURE.convert("L"), "BMP"),
    "32-bit BMP": encoded(PICTURE.convert("RGBA"), "BMP"),
    "BMP from the top": bmp(WIDTH, -HEIGHT, pixels=np.asarray(PICTURE)[..., ::-1].tobytes()),
    "GIF": encoded(PICTURE, "GIF"),
    "interlaced GIF": encoded(PICTURE.convert("P"), "GIF", interlace=1),
    "animated GIF": encoded(
        PICTURE, "GIF", save_all=True, append_images=[smooth(seed=n) for n in range(1, 5)]
    ),
}


@pytest.fixture(scope="module")
def decoder():
    return ImageDecoder((HEIGHT, WIDTH), max_pixels=1_000_000)


@pytest.fixture(scope="module")
def small():
    return ImageDecoder(32)


def decoded(decoder, *contents):
    return decoder(tf.constant(list(contents), tf.string))["pixels"].numpy()


def said(decoder, contents):
    """What the graph refuses an image with."""
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        decoded(decoder, contents)
    return caught.value.message


def problem(contents, max_pixels=1_000_000):
    header = header_of(tf.constant(contents), max_pixels=max_pixels)
    return problem_text(header, max_pixels=max_pixels).numpy().decode()


def test_reads_every_format_as_pillow_does(decoder):
    pixels = decoded(decoder, *FILES.values())
    for ours, (name, contents) in zip(pixels, FILES.items(), strict=True):
        theirs = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB")).astype(int)
        np.testing.assert_allclose(ours, theirs, atol=1 if "JPEG" in name else 0, err_msg=name)


def test_scales_16_bits_to_8_with_rounding(decoder):
    deep = np.random.default_rng(0).integers(0, 2**16, (HEIGHT, WIDTH)).astype(np.uint16)
    deep[0, :4] = [0, 128, 129, 65535]
    (pixels,) = decoded(decoder, encoded(Image.fromarray(deep), "PNG"))
    expected = np.round(deep * (255 / 65535)).astype(np.uint8)
    np.testing.assert_array_equal(pixels, np.repeat(expected[..., np.newaxis], 3, axis=2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_applies_orientation(decoder, orientation):
    contents = with_orientation(PICTURE, orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(contents)))
    header = decoder.header(tf.constant(contents))
    assert header.orientation == orientation
    (pixels,) = decoded(decoder, contents)
    (expected,) = decoded(decoder, encoded(upright, "PNG"))
    # A turned image is resized before it is turned.
    np.testing.assert_allclose(pixels.astype(int), expected.astype(int), atol=2)


class Served(tf.Module):
    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(self, image_bytes):
        return self.decoder.rows(image_bytes)[0]


def test_saved_graph_gives_the_pixels_of_training_bit_for_bit(tmp_path):
    contents = [with_orientation(smooth(150, 210), orientation) for orientation in range(1, 9)]
    contents += [*FILES.values(), encoded(smooth(11, 7), "PNG")]
    decoder = ImageDecoder((40, 32), aspect="crop", max_pixels=100_000)
    module = Served(decoder)
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={"serve": module.serve})
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serve"]
    batches = tf.data.Dataset.from_tensor_slices(contents).batch(5).map(decoder)
    trained = np.concatenate([batch["pixels"] for batch in batches])
    served = serve(tf.constant(contents))["pixels"].numpy()
    np.testing.assert_array_equal(served, trained)
    np.testing.assert_array_equal(decoder.fixed(contents)[0]["pixels"], trained)
    assert serve(tf.constant([], tf.string))["pixels"].shape == (0, 40, 32, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not an image in JPEG, PNG, BMP or GIF"):
        serve(tf.constant(["text"]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="60000 x 50000 pixels, more than max_pixels"):
        serve(tf.constant([png(60_000, 50_000)]))


def test_shrinking_averages_fine_patterns(small):
    board = (np.indices((160, 96)).sum(axis=0) % 2 * 255).astype(np.uint8)
    (pixels,) = decoded(small, encoded(Image.fromarray(board), "PNG"))
    # Areas of 5 x 3 squares are white and black but for one square.
    assert abs(pixels.astype(int) - 127).max() <= 9


@pytest.mark.parametrize(("height", "width"), [(70, 90), (150, 210), (300, 1000)])
def test_shrinks_as_pillow_averages(small, height, width):
    picture = smooth(height, width)
    boxes = np.asarray(picture.resize((32, 32), Image.Resampling.BOX)).astype(int)
    for kind, options in (("PNG", {}), ("JPEG", {"quality": 95, "subsampling": 0})):
        (pixels,) = decoded(small, encoded(picture, kind, **options))
        assert np.abs(pixels - boxes).mean() < 2.5, kind


def test_interpolates_the_side_that_grows(small):
    picture = smooth(20, 200)
    narrow = picture.resize((32, 20), Image.Resampling.BOX)
    expected = np.asarray(narrow.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    (pixels,) = decoded(small, encoded(picture, "PNG"))
    assert np.abs(pixels - expected).mean() < 1


def test_crops_the_centre_and_pads_with_black():
    bands = np.zeros((20, 60, 3), np.uint8)
    bands[:, 20:40] = 200
    contents = encoded(Image.fromarray(bands), "PNG")
    (cropped,) = decoded(ImageDecoder(20, aspect="crop"), contents)
    assert (cropped == 200).all()
    padding = ImageDecoder(30, aspect="pad")
    (padded,) = decoded(padding, contents)
    assert (padded[:10] == 0).all()
    assert (padded[20:] == 0).all()
    assert (padded[10:20, 12:18] == 200).all()
    (turned,) = decoded(padding, with_orientation(Image.fromarray(bands), 6))
    assert (turned[:, :10] == 0).all()
    assert (turned[12:18, 12:18] > 180).all()


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "the file is empty"),
        (b"this is no photograph", "not an image in JPEG, PNG, BMP or GIF format"),
        (b"\xff", "not an image"),
        (encoded(PICTURE, "WEBP"), "not an image"),
        (encoded(PICTURE, "TIFF"), "not an image"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 50, "not an image"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI", "does not begin with its header chunk"),
        (png(0, 5), "has no pixels"),
        (bmp(0, 5), "has no pixels"),
        (bmp(5, 0), "has no pixels"),
        (bmp(-5, 5), "header is damaged"),
        (bmp(5, 5), "cut short"),
        (bmp(5, -(2**31)), "max_pixels"),
        (bmp(2**31 - 1, 2**31 - 1), "max_pixels"),
        (bmp(2, 2, bits=32, compression=3, pixels=b"\0" * 80), "is compressed"),
        (bmp(2, 2, bits=8, compression=1, palette=bytes(1024), pixels=b"\0" * 8), "cannot be read here"),
        (encoded(PICTURE.convert("P"), "BMP"), "save it as PNG"),
        (encoded(PICTURE.convert("1"), "BMP"), "save it as PNG"),
        (b"BM" + b"\0" * 8 + struct.pack("<III", 26, 12, 4) + b"\0" * 40, "of an old kind"),
        (b"BM", "of an old kind"),
        (b"GIF89a" + b"\0" * 7 + b";", "holds no frame"),
        (b"GIF89a", "holds no frame"),
    ],
)
def test_refuses_in_plain_words(contents, words):
    assert words in problem(contents)


def test_grey_bmp_with_compression_is_refused():
    ramp = b"".join(bytes([level, level, level, 0]) for level in range(256))
    assert "is compressed" in problem(bmp(2, 2, bits=8, compression=1, palette=ramp, pixels=b"\0" * 8))
    assert problem(bmp(2, 2, bits=8, palette=ramp, pixels=b"\0" * 8)) == ""


@pytest.mark.parametrize(
    "contents",
    [
        png(2**31 - 1, 2**31 - 1),
        png(2**32 - 1, 2**32 - 1),
        png(1001, 1000),
        resized_sof(FILES["JPEG"], 65_000, 65_000),
        bmp(100_000, 100_000),
        b"GIF89a\1\0\1\0\0\0\0," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\2\1\0\0;",
    ],
)
def test_refuses_bombs_before_decoding(decoder, contents):
    assert "more than max_pixels = 1,000,000" in problem(contents)
    assert "more than max_pixels = 1,000,000" in said(decoder, contents)


def test_refuses_thousands_of_scans():
    assert "so many scans" in problem(repeated_scan(3000))
    assert problem(encoded(smooth(512, 512), "JPEG", progressive=True), max_pixels=2**18) == ""


def test_bytes_that_look_like_scans_behind_a_photograph_do_no_harm():
    film = np.random.default_rng(0).integers(0, 256, 4000, np.uint8).tobytes() + b"\xff\xda" * 5000
    assert problem(FILES["JPEG"] + film, max_pixels=2000) == ""


def test_decodes_only_the_first_frame_of_a_gif(decoder):
    single, animated = FILES["GIF"], FILES["animated GIF"]
    header = decoder.header(tf.constant(animated))
    assert header.end < len(animated) // 2
    rest = animated[int(header.end) :]
    frames = animated[: int(header.end)] + rest[:-1] * 300 + b"garbage"
    np.testing.assert_array_equal(*decoded(decoder, single, frames))


def test_places_the_frame_of_a_gif_at_its_own_corner(decoder):
    contents = FILES["GIF"]
    at = int(decoder.header(tf.constant(contents)).start)
    moved = contents[: at + 1] + struct.pack("<HH", 300, 200) + contents[at + 5 :]
    np.testing.assert_array_equal(*decoded(decoder, contents, moved))


def test_walks_gifs_in_bounded_steps(decoder):
    blocks = b"!\xfe" + b"\1a\2bc" * 20_000 + b"\0"
    assert "too many pieces" in said(decoder, b"GIF89a\1\0\1\0\0\0\0" + blocks)


@pytest.mark.parametrize("order", ["<", ">"])
def test_reads_exif_of_both_byte_orders(order):
    assert exif_orientation(tf.constant(exif(tiff(6, order=order)))) == 6
    moved = tiff(3, order=order, offset=40)
    assert exif_orientation(tf.constant(exif(moved[:8] + b"\0" * 32 + moved[8:]))) == 3


@pytest.mark.parametrize(
    "contents",
    [
        FILES["JPEG"],
        exif(b""),
        exif(b"II*\0"),
        exif(b"XX*\0" + tiff()[4:]),
        exif(tiff(offset=0)),
        exif(tiff(offset=2**32 - 1)),
        exif(tiff(offset=60_000)),
        exif(tiff(count=0)),
        exif(tiff(count=65_535, tag=0x0100)),
        exif(tiff(kind=4)),
        exif(tiff(0)),
        exif(tiff(9)),
        exif(tiff(), kind=b"http:\0"),
        exif(tiff())[:30],
        FILES["JPEG"][:2] + b"\xff\xe1\0\0" * 200 + FILES["JPEG"][2:],
        FILES["JPEG"][:2] + b"\xff\xe0\0\4ab" * 200 + exif(tiff())[2:],
    ],
)
def test_exif_without_sense_means_upright(contents):
    assert exif_orientation(tf.constant(contents)) == 1


def test_mutated_and_truncated_files_give_pixels_or_a_clear_error(decoder):
    rng = np.random.default_rng(0)
    originals = [*FILES.values(), with_orientation(PICTURE, 6), exif(tiff(order=">"))]
    outcomes = {"pixels": 0, "refused": 0}
    for number in range(400):
        contents = bytearray(originals[number % len(originals)])
        if number % 4 == 0:
            contents = contents[: rng.integers(len(contents))]
        else:
            # Headers stand at the beginning: half of the changes are there.
            reach = min(len(contents), 80) if number % 2 else len(contents)
            for place in rng.integers(0, reach, rng.integers(1, 6)):
                contents[place] = rng.choice([0, 255, rng.integers(256)])
        try:
            assert decoded(decoder, bytes(contents)).shape == (1, HEIGHT, WIDTH, 3)
            outcomes["pixels"] += 1
        except tf.errors.InvalidArgumentError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


def test_works_eagerly_and_on_no_images(decoder):
    eager = decoder.decode(tf.constant(FILES["JPEG"])).numpy()
    np.testing.assert_array_equal(eager, decoded(decoder, FILES["JPEG"])[0])
    assert decoded(decoder).shape == (0, HEIGHT, WIDTH, 3)
    assert decoder.fixed([])[0]["pixels"].shape == (0, HEIGHT, WIDTH, 3)


def test_inspects_good_and_bad_images_together(decoder):
    turned = with_orientation(smooth(20, 50), 6)
    contents = [
        FILES["JPEG"],
        b"text",
        turned,
        FILES["PNG"][:-40],
        FILES["JPEG"][:100],
        png(4000, 4000),
        FILES["GIF"],
    ]
    facts = inspect_images(decoder, contents)
    assert [fact.format for fact in facts] == ["JPEG", "unknown", "JPEG", "PNG", "JPEG", "PNG", "GIF"]
    assert [(fact.width, fact.height) for fact in facts[:3]] == [(WIDTH, HEIGHT), (0, 0), (20, 50)]
    assert [fact.error is None for fact in facts] == [True, False, True, False, False, False, True]
    assert facts[3].error == "the PNG file is damaged or cut short"
    assert "4000 x 4000" in facts[5].error
    assert [fact.thumbnail is None for fact in facts] == [fact.error is not None for fact in facts]
    grey = np.asarray(PICTURE.convert("L").resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(facts[0].thumbnail - grey).mean() < 6
    assert inspect_images(decoder, []) == []


def test_config_builds_an_equal_decoder():
    decoder = ImageDecoder((30, 20), aspect="pad", max_pixels=1234)
    assert ImageDecoder.from_config(decoder.get_config()).get_config() == decoder.get_config()
    assert ImageDecoder(224).image_size == (224, 224)
    assert decoder.asset_files() == {}
    assert FORMATS[1:] == ("JPEG", "PNG", "BMP", "GIF")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 0}, "image_size = 0"),
        ({"image_size": (8, 9, 3)}, "image_size"),
        ({"image_size": 5000}, "4096"),
        ({"image_size": 8, "aspect": "crp"}, "did you mean 'crop'"),
        ({"image_size": 8, "max_pixels": 0}, "max_pixels = 0"),
    ],
)
def test_bad_settings_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        ImageDecoder(**options)
