"""Common corruptions of images and texts in five severities: one file a family of corruptions."""

from tfapp.data.corruptions._corrupt import (
    IMAGE_CORRUPTIONS,
    TEXT_CORRUPTIONS,
    check_corruption,
    corrupt_image,
    corrupt_images,
    corrupt_text,
    corrupt_texts,
)
from tfapp.data.corruptions._levels import SEVERITIES, SMALLEST_SIDE

__all__ = [
    "IMAGE_CORRUPTIONS",
    "SEVERITIES",
    "SMALLEST_SIDE",
    "TEXT_CORRUPTIONS",
    "check_corruption",
    "corrupt_image",
    "corrupt_images",
    "corrupt_text",
    "corrupt_texts",
]
