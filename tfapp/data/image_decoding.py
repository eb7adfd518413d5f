"""The one image decoder of training, calibration and serving: encoded bytes to pixels in the graph."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.image_headers import ImageHeader, header_of, problem_text
from tfapp.data.image_limits import MAX_PIXELS as MAX_PIXELS
from tfapp.data.image_limits import MOST_MAX_PIXELS
from tfapp.data.image_resizing import BILINEAR_TO, oriented, padded, resized, target_size, used_part
from tfapp.data.image_rows import EncodedImages, ImageRows, naming_bad_images
from tfapp.data.image_segments import bytes_at, gif_palette_size
from tfapp.errors import ConfigError, nearest

ASPECTS = ("stretch", "crop", "pad")
_LONGEST_SIDE = 4096
_CHUNK = 64
_RATIOS = (1, 2, 4, 8)


class ImageDecoder(tf.Module):  # type: ignore[misc]
    """Turns encoded images into pixels of one size, alike in training and in a SavedModel.

    Reads JPEG (also progressive, grey and CMYK), PNG (also grey, palette, 16 bits a sample), BMP (8-bit grey,
    24 and 32 bits, not compressed) and of GIF the first frame. Format, size and EXIF orientation are read
    from the header first, and what cannot or must not be decoded is refused before any decoding. Grey
    becomes three equal channels; 16 bits become 8, rounded; transparency is dropped without blending, as
    Keras and Pillow's ``convert("RGB")`` do; colour profiles are not applied.

    The orientation is JPEG's; that of other formats is not looked for.

    Images that shrink noticeably are averaged over the pixels that fall together, so that fine
    patterns do not alias; JPEG files do most of this while they are decoded.

    Args:
        image_size: Height and width of the pixels, or one number for both; 1 up to 4096.
        aspect: ``"stretch"`` to that size, ``"crop"`` the centre of the size's aspect ratio first, or
            ``"pad"`` with black what the whole image leaves free.
        max_pixels: Most pixels an image may have; larger ones are refused before they are decoded.

    Raises:
        ConfigError: When an argument cannot be used.
    """

    feature_name = "image_bytes"
    tensor_endpoint = "serve_pixels"
    tensor_dtypes: ClassVar[dict[str, str]] = {"pixels": "uint8"}
    variants = ("saved_model", "keras", "float32", "float16", "dynamic", "int8", "onnx")
    # What a browser can run, the best first: in WebAssembly, 8-bit weights alone make convolutions slower.
    web_variants = ("int8", "float16", "float32", "dynamic")

    def __init__(
        self,
        image_size: int | Sequence[int],
        *,
        aspect: Literal["stretch", "crop", "pad"] = "stretch",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(name="image_decoder")
        sides = (image_size, image_size) if isinstance(image_size, int) else tuple(map(int, image_size))
        if len(sides) != 2 or not all(1 <= side <= _LONGEST_SIDE for side in sides):
            raise ConfigError(
                f"image_size = {image_size!r}: a number of pixels or (height, width), "
                f"each from 1 to {_LONGEST_SIDE}, is needed."
            )
        if aspect not in ASPECTS:
            raise ConfigError(f"aspect = {aspect!r}; {nearest(aspect, ASPECTS)}")
        if not 1 <= max_pixels <= MOST_MAX_PIXELS:
            raise ConfigError(f"max_pixels = {max_pixels}: from 1 to {MOST_MAX_PIXELS:,} are possible.")
        self._image_size = (int(sides[0]), int(sides[1]))
        self.aspect = aspect
        self.max_pixels = int(max_pixels)
        # A plain function, so that a SavedModel does not carry the graph as an endpoint of its own.
        self._compiled = compiled_when_called(self._decoded)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the pixels."""
        return self._image_size

    def header(self, contents: tf.Tensor) -> ImageHeader:
        """Reads one image's header; see `header_of`."""
        return header_of(contents, max_pixels=self.max_pixels)

    def decode(self, contents: tf.Tensor) -> tf.Tensor:
        """Decodes one image.

        Args:
            contents: The encoded image, a scalar string.

        Returns:
            uint8 ``(height, width, 3)``. In a graph or eagerly, an image that is refused or damaged raises
            InvalidArgumentError.
        """
        return self.decode_after(self.header(contents), contents)

    def decode_after(self, header: ImageHeader, contents: tf.Tensor) -> tf.Tensor:
        """Decodes one image whose header was read before; see `decode`.

        Args:
            header: What `header` answered.
            contents: The encoded image, a scalar string.

        Returns:
            uint8 ``(height, width, 3)``.
        """
        size = tf.where(header.orientation >= 5, self.image_size[::-1], self.image_size)

        def refuse() -> tf.Tensor:
            message = problem_text(header, max_pixels=self.max_pixels)
            with tf.control_dependencies([tf.debugging.Assert(tf.constant(False), [message])]):
                return tf.zeros(tf.concat([size, [3]], axis=0))

        branch = tf.where(
            header.problem > 0, 0, tf.where((header.format == 2) & header.deep, 5, header.format)
        )
        chosen = tf.switch_case(
            branch,
            [
                refuse,
                lambda: self._jpeg(contents, header, size),
                lambda: resized(tf.io.decode_png(contents, channels=3), size, self.aspect),
                lambda: resized(_bmp_pixels(contents, header), size, self.aspect),
                lambda: resized(_gif_pixels(contents, header), size, self.aspect),
                lambda: (
                    resized(tf.io.decode_png(contents, channels=3, dtype=tf.uint16), size, self.aspect)
                    / 257.0
                ),
            ],
        )
        pixels = tf.cast(chosen + 0.5, tf.uint8)
        pixels = tf.cond(
            header.orientation == 1, lambda: pixels, lambda: oriented(pixels, header.orientation)
        )
        if self.aspect == "pad":
            pixels = padded(pixels, self.image_size)
        return tf.ensure_shape(pixels, (*self.image_size, 3))

    def _jpeg(self, contents: tf.Tensor, header: ImageHeader, size: tf.Tensor) -> tf.Tensor:
        """Decodes a JPEG file at a half, a quarter or an eighth of its size when that is still enough."""
        full = tf.cast(tf.stack([header.height, header.width]), tf.int32)
        times = tf.reduce_min(used_part(full, size, self.aspect)[0] // target_size(full, size, self.aspect))
        chosen = tf.reduce_sum(tf.cast(times >= _RATIOS[1:], tf.int32))

        def at(ratio: int) -> Callable[[], tf.Tensor]:
            return lambda: tf.io.decode_jpeg(contents, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

        return resized(tf.switch_case(chosen, [at(ratio) for ratio in _RATIOS]), size, self.aspect)

    def _decoded(self, contents: tf.Tensor) -> tf.Tensor:
        spec = tf.TensorSpec((*self.image_size, 3), tf.uint8)
        return tf.map_fn(self.decode, contents, fn_output_signature=spec)

    def __call__(self, contents: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decodes a batch.

        Args:
            contents: Encoded images ``(batch,)``.

        Returns:
            ``pixels``, uint8 ``(batch, height, width, 3)``.
        """
        return {"pixels": self._compiled(tf.convert_to_tensor(contents, tf.string))}

    def rows(self, contents: tf.Tensor) -> tuple[dict[str, tf.Tensor], None]:
        """Decodes a batch, a row an image; the None says that every row is an image of its own."""
        return self(contents), None

    def fixed(self, features: Sequence[bytes]) -> tuple[dict[str, npt.NDArray[np.uint8]], None]:
        """Decodes any number of images.

        Args:
            features: The encoded images, read when asked; with ``name(row)`` where they have names.

        Returns:
            As `rows`, as a numpy array.

        Raises:
            DataError: When some cannot be read or decoded, with their names.
        """
        rows = self.make_rows(self.encode(features))
        pixels = np.empty((len(rows), *self.image_size, 3), np.uint8)
        with naming_bad_images():
            for start in range(0, len(rows), _CHUNK):
                chunk = tf.range(start, min(start + _CHUNK, len(rows)))
                pixels[start : start + _CHUNK] = rows.gather(chunk)["pixels"]
        return {"pixels": pixels}, None

    def encode(self, images: Sequence[bytes], *, digests: Sequence[str] | None = None) -> EncodedImages:
        """Pairs images with this decoder's settings; nothing is read or decoded yet.

        Args:
            images: Encoded images, read when asked.
            digests: The SHA-256 of each one's bytes in hexadecimal digits, where it is known.

        Returns:
            What `make_rows` takes.
        """
        return EncodedImages(images, self, digests)

    def make_rows(
        self, encoded: EncodedImages, *, inputs: Sequence[str] = ("pixels",), pad_to: int = 1
    ) -> ImageRows:
        """Makes rows that batches of pixels are gathered from.

        Args:
            encoded: What `encode` answered.
            inputs: The inputs that a model declares: ``("pixels",)``.
            pad_to: Of no effect: all rows have the same size.

        Returns:
            The rows.
        """
        return ImageRows(encoded)

    def asset_files(self) -> dict[str, bytes]:
        """The files an edge device needs to make pixels: none."""
        return {}

    def web_settings(self) -> dict[str, Any]:
        """What a web page needs to make nearly the same pixels of an image, as JSON takes it."""
        return {**self.get_config(), "bilinear_to": BILINEAR_TO, "jpeg_ratios": list(_RATIOS)}

    def settings(self) -> dict[str, Any]:
        """What `get_config` gives: a decoder has no vocabulary that is kept apart."""
        return self.get_config()

    def get_config(self) -> dict[str, Any]:
        """The arguments that build an equal decoder."""
        return {"image_size": list(self.image_size), "aspect": self.aspect, "max_pixels": self.max_pixels}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImageDecoder:
        """Builds a decoder from `get_config`'s answer."""
        return cls(config["image_size"], aspect=config["aspect"], max_pixels=int(config["max_pixels"]))


def compiled_when_called(function: Callable[[tf.Tensor], Any]) -> Callable[[tf.Tensor], Any]:
    """Makes a graph of a function of a batch of strings when it is first called.

    Args:
        function: From strings ``(batch,)`` to tensors.

    Returns:
        The same function, as a graph.
    """
    compiled = tf.function(function, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    graph = functools.cache(lambda: compiled.get_concrete_function())
    return lambda contents: graph()(contents)


def _bmp_pixels(contents: tf.Tensor, header: ImageHeader) -> tf.Tensor:
    pixels = tf.io.decode_bmp(contents)[..., :3]
    return tf.broadcast_to(pixels, tf.stack([header.height, header.width, 3]))


def _gif_pixels(contents: tf.Tensor, header: ImageHeader) -> tf.Tensor:
    """Decodes a file made of the first frame only: TensorFlow would decode all frames."""
    palette = 13 + gif_palette_size(bytes_at(contents, 10, 1)[0])
    frame = tf.strings.substr(contents, header.start + 5, header.end - header.start - 5)
    first = tf.strings.join([tf.strings.substr(contents, 0, palette), b",\0\0\0\0", frame, b";"])
    return tf.io.decode_gif(first)[0]
