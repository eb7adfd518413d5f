"""How large an image may be; this module imports nothing, so that the schema of workflow files can."""

MAX_PIXELS = 50_000_000
"""Most pixels of an image unless another number is given."""

MOST_MAX_PIXELS = 2**28
"""The largest number that may be given."""
