"""Data too large for memory: TFRecord shards, how they are written, and how training reads them.

Nothing is imported here, so that reading a manifest does not load TensorFlow.
"""
