"""The njit kernels: pure functions over views, columns and scalars.

Every integer inside a kernel is an int64; sequence numbers, addresses and time stamps that wrap are
int64 values masked to 32 bits (see `sequence`). Byte layout lives in `headers`, the columns of a burst
in `batch`, the state of a connection in `connection`, jit options in `jit`, C functions in `native`.
"""
