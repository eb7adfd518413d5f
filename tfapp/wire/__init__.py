"""What tfapp says to model servers: the few protocol buffers of TF Serving, without TensorFlow.

TF Serving's own Python package needs TensorFlow, of one version. The messages here are described by hand,
with the names and numbers of theirs, and live in a descriptor pool of their own: they are the same bytes, and
both can be loaded in one process.
"""
