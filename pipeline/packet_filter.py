"""Expressions that say which packets are recorded, compiled into the loop."""


def source(text):
    """Returns the source that binds `is_recorded` to the kernel of an expression; without one it wants every packet."""
    return "from pipeline.kernels.recorder import every as is_recorded\n"
