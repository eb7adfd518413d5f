"""Data: readers, cleaning, splits and reports for text, and the tokenizer that all artifacts share.

Nothing is imported here, so that reading data does not load TensorFlow.
"""
