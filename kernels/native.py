"""Every C function and every LLVM intrinsic that kernels use, each with a plain Python stand-in.

C functions are named as `types.ExternalFunction` symbols of the shim (loaded beforehand with
`llvmlite.binding.load_library_permanently`): that keeps kernels cacheable, which a cffi function or an
address taken at run time does not. With `NUMBA_DISABLE_JIT=1` the stand-ins serve, so that the whole
loop runs as plain Python.
"""
import ctypes
import time

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config, errors
from numba.core.cgutils import alloca_once, get_or_insert_function
from numba.extending import intrinsic
from numpy import int64

from .jit import kernel

CRC32C_POLYNOMIAL = 0x82F63B78
HAS_SSE42_CRC = HAS_FENCE = False
try:
    HAS_SSE42_CRC = bool(llvmlite.binding.get_host_cpu_features().get("sse4.2"))
    HAS_FENCE = bool(llvmlite.binding.get_host_cpu_features().get("sse2"))
except RuntimeError:  # a host LLVM knows no features of: the portable CRC serves
    HAS_SSE42_CRC = HAS_FENCE = False


@kernel
def swap16(value):
    """Returns the low 16 bits of `value` (int64) with their two bytes exchanged."""
    return ((value & 0xFF) << 8) | ((value >> 8) & 0xFF)


@kernel
def swap32(value):
    """Returns the low 32 bits of `value` (int64) with their four bytes in reverse (LLVM makes a bswap of it)."""
    return ((value & 0xFF) << 24) | ((value & 0xFF00) << 8) | ((value >> 8) & 0xFF00) | ((value >> 24) & 0xFF)


@kernel
def _portable_crc32c(seed, word):
    crc = seed & 0xFFFFFFFF
    for byte in range(8):
        crc ^= (word >> (8 * byte)) & 0xFF
        for _ in range(8):
            crc = (crc >> 1) ^ (CRC32C_POLYNOMIAL & -(crc & 1))
    return crc


def _intrinsic(signature):
    """Wraps `emit(builder, arguments) -> value` as a Numba intrinsic with one fixed `signature`."""
    def decorate(emit):
        """Makes an intrinsic of `emit`, under its name."""
        count = len(signature.args)
        arguments = ", ".join(f"a{number}" for number in range(count))
        scope = {"signature": signature, "emit": emit}
        exec(f"def typing({', '.join(filter(None, ['context', arguments]))}):\n"  # noqa: S102
             "    return signature, lambda context, builder, kind, arguments: emit(builder, arguments)", scope)
        scope["typing"].__name__ = emit.__name__
        scope["typing"].__doc__ = emit.__doc__
        return intrinsic(scope["typing"])
    return decorate


I8, I16, I32, I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
LANES = 16

if config.DISABLE_JIT:
    crc32c = _portable_crc32c

    def trailing_zeros(value):
        """Returns how many zero bits a number other than 0 ends with."""
        return (int(value) & -int(value)).bit_length() - 1

    def prefetch(address):
        """Does nothing: there is no cache to warm in plain Python."""

    prefetch_many = prefetch

    def ticks():
        """Returns a clock that counts up, in nanoseconds."""
        return time.perf_counter_ns()

    ordered_ticks = ticks

    def unlikely(condition):
        """Returns `condition`."""
        return condition

    def load_acquire(address):
        """Returns the int64 at `address`."""
        return ctypes.c_int64.from_address(int(address)).value

    def store_release(address, value):
        """Stores `value` as the int64 at `address`."""
        ctypes.c_int64.from_address(int(address)).value = int(value)
else:
    if HAS_SSE42_CRC:
        @_intrinsic(types.int64(types.int64, types.int64))
        def crc32c(builder, arguments):
            """Returns the CRC32C of 8 more bytes (`word`) over `seed`, by the SSE 4.2 instruction."""
            function = get_or_insert_function(builder.module, ir.FunctionType(I64, [I64, I64]),
                                              "llvm.x86.sse42.crc32.64.64")
            return builder.call(function, list(arguments))
    else:
        crc32c = _portable_crc32c

    @_intrinsic(types.int64(types.int64))
    def trailing_zeros(builder, arguments):
        """Returns how many zero bits a number other than 0 ends with."""
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    def _prefetch(builder, address, locality):
        """Asks for the cache line at an address (LLVM's locality 3: every level of the cache, 2: all but the first)."""
        pointer = builder.inttoptr(address, I8.as_pointer())
        function = get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32]), "llvm.prefetch.p0")
        builder.call(function, [pointer, I32(0), I32(locality), I32(1)])
        return ir.Constant(I8.as_pointer(), None)

    @_intrinsic(types.void(types.int64))
    def prefetch(builder, arguments):
        """Asks for the cache line at an address, to be read and written, in every level of the cache."""
        return _prefetch(builder, arguments[0], 3)

    @_intrinsic(types.void(types.int64))
    def prefetch_many(builder, arguments):
        """Asks for one of dozens of cache lines: in the second level, which waits for twice as many as the first can.

        Of 64 lines at random of 96 MB each took 18.5 ticks, and 24.8 by `prefetch`; of 8 MB 8.5 and 11.8 (Zen 4).
        """
        return _prefetch(builder, arguments[0], 2)

    @_intrinsic(types.int64())
    def ticks(builder, arguments):
        """Returns the time-stamp counter (TSC ticks)."""
        function = get_or_insert_function(builder.module, ir.FunctionType(I64, []), "llvm.readcyclecounter")
        return builder.call(function, [])

    @_intrinsic(types.int64())
    def ordered_ticks(builder, arguments):
        """Returns the time-stamp counter, with nothing before it still under way and nothing after it begun.

        For what takes less than a microsecond; without SSE 2 it is `ticks`.
        """
        read = get_or_insert_function(builder.module, ir.FunctionType(I64, []), "llvm.readcyclecounter")
        if not HAS_FENCE:
            return builder.call(read, [])
        fence = get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.lfence")
        builder.call(fence, [])
        now = builder.call(read, [])
        builder.call(fence, [])
        return now

    @_intrinsic(types.boolean(types.boolean))
    def unlikely(builder, arguments):
        """Returns `condition`, which is hardly ever true: what is done then lies out of the way of all else (llvm.expect)."""
        bit = ir.IntType(1)
        function = get_or_insert_function(builder.module, ir.FunctionType(bit, [bit, bit]), "llvm.expect.i1")
        return builder.call(function, [arguments[0], ir.Constant(bit, 0)])

    @_intrinsic(types.int64(types.int64))
    def load_acquire(builder, arguments):
        """Returns the int64 at an address; nothing after it moves before it (there is no volatile in Numba)."""
        pointer = builder.inttoptr(arguments[0], I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8, typ=I64)

    @_intrinsic(types.void(types.int64, types.int64))
    def store_release(builder, arguments):
        """Stores an int64 at an address; nothing before it moves after it."""
        pointer = builder.inttoptr(arguments[0], I64.as_pointer())
        builder.store_atomic(arguments[1], pointer, "release", 8)
        return ir.Constant(I8.as_pointer(), None)


if config.DISABLE_JIT or config.BOUNDSCHECK:
    @kernel
    def record_at(records, place):
        """Returns the record of a structured array at `place`, which is checked."""
        return records[place]
else:
    @intrinsic
    def record_at(context, records, place):
        """Returns the record of a structured array at `place`: an index if it is contiguous, else, of an overlay with a
        stride of one byte, an offset. Never negative.

        Plain indexing asks of every index whether it counts from the end, and multiplies by a stride that it loads:
        parse and rewrite took twice as long.
        """
        size = records.dtype.size if records.layout == "C" else 1

        def emit(context, builder, signature, arguments):
            """Adds the place to the address of the first record."""
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            offset = builder.mul(arguments[1], I64(size))
            address = builder.gep(builder.bitcast(data, I8.as_pointer()), [offset])
            return builder.bitcast(address, context.get_value_type(signature.return_type))
        return records.dtype(records, types.int64), emit


if config.DISABLE_JIT or config.BOUNDSCHECK:
    @kernel
    def lanes_with(record, value):
        """Returns a bit for each tag of a record, which begins with at most 16 of two bytes, that equals `value`."""
        found = 0
        for lane in range(record.tag.shape[0]):
            found |= int64(int64(record.tag[lane]) == value) << lane
        return found
else:
    @intrinsic
    def lanes_with(context, record, value):
        """Returns a bit for each of the 16 pairs of bytes that a record begins with that equals `value`.

        What is behind the tags counts too: the caller masks it. One comparison of vectors, where LLVM makes a chain of
        shifts of a loop.
        """
        def emit(context, builder, signature, arguments):
            """Compares 32 bytes at once."""
            lanes = ir.VectorType(I16, LANES)
            loaded = builder.load(builder.bitcast(arguments[0], lanes.as_pointer()), align=2, typ=lanes)
            wanted = builder.insert_element(ir.Constant(lanes, ir.Undefined), builder.trunc(arguments[1], I16), I32(0))
            wanted = builder.shuffle_vector(wanted, ir.Constant(lanes, ir.Undefined),
                                            ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))
            equal = builder.icmp_unsigned("==", loaded, wanted)
            return builder.zext(builder.bitcast(equal, I16), I64)
        return types.int64(record, types.int64), emit


if config.DISABLE_JIT or config.BOUNDSCHECK:
    @kernel
    def copy_octets(destination, at, source, start, length):
        """Copies `length` bytes between two arrays (uint8, 1-D) that do not overlap there."""
        for number in range(length):
            destination[at + number] = source[start + number]
else:
    @intrinsic
    def copy_octets(context, destination, at, source, start, length):
        """Copies `length` bytes between two arrays (uint8, 1-D) that do not overlap there: by memcpy.

        Byte by byte, each index asked whether it counts from the end, and what was read next in words waited for the stores.
        """
        def emit(context, builder, signature, arguments):
            """Calls LLVM's intrinsic."""
            places = []
            for array, place, kind in ((0, 1, destination), (2, 3, source)):
                data = context.make_array(kind)(context, builder, arguments[array]).data
                places.append(builder.gep(builder.bitcast(data, I8.as_pointer()), [arguments[place]]))
            kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I8.as_pointer(), I64, ir.IntType(1)])
            function = get_or_insert_function(builder.module, kind, "llvm.memcpy.p0.p0.i64")
            builder.call(function, [*places, arguments[4], ir.Constant(ir.IntType(1), 0)])
            return context.get_dummy_value()
        return types.void(destination, types.int64, source, types.int64, types.int64), emit


if config.DISABLE_JIT:
    def whole_number(value):
        """Returns `value`, which has to be a whole number."""
        if int(value) != value:
            raise TypeError(f"a whole number is expected, not {value!r}")
        return value
else:
    @intrinsic
    def whole_number(context, value):
        """Returns `value` (int64); what is no whole number on every path is refused when the loop is compiled."""
        if not isinstance(value, (types.Integer, types.Boolean)):
            raise errors.TypingError(f"a kernel has to answer with a whole number on every path, not with {value}")

        def emit(context, builder, signature, arguments):
            """Widens the number."""
            return context.cast(builder, arguments[0], value, types.int64)
        return types.int64(value), emit


@kernel
def address_of(array):
    """Returns the address (int64) of the first byte of an array."""
    return int64(array.ctypes.data)


if config.DISABLE_JIT:
    _laid_out = {}

    def structure_of(columns):
        """Returns the address of 64-bit words, one for each of `columns`; they are good until the next ones are made."""
        words, waiting = [], list(columns)
        while waiting:
            column = waiting.pop(0)
            if isinstance(column, tuple):
                waiting[:0] = column
            else:
                words.append(int(column) if np.isscalar(column) else column.ctypes.data)
        _laid_out["words"] = (ctypes.c_int64 * len(words))(*words)
        return ctypes.addressof(_laid_out["words"])
else:
    @intrinsic
    def structure_of(context, columns):
        """Returns the address of 64-bit words on the stack, one for each of `columns`: arrays, numbers, or tuples of them.

        Of an array it is the address of its first byte. They are good until the caller returns.
        """
        def words(context, builder, kind, value):
            """Yields the words of a value."""
            if isinstance(kind, types.BaseTuple):
                for place, part in enumerate(kind.types):
                    yield from words(context, builder, part, builder.extract_value(value, place))
            elif isinstance(kind, types.Array):
                yield builder.ptrtoint(context.make_array(kind)(context, builder, value).data, I64)
            else:
                yield context.cast(builder, value, kind, types.int64)

        def emit(context, builder, signature, arguments):
            """Stores the words in the frame of the function that all this is inlined into."""
            found = list(words(context, builder, columns, arguments[0]))
            room = alloca_once(builder, ir.ArrayType(I64, len(found)))
            for place, word in enumerate(found):
                builder.store(word, builder.gep(room, [I32(0), I32(place)], inbounds=True))
            return builder.ptrtoint(room, I64)
        return types.int64(columns), emit


_libraries = []


def use_library(path):
    """Loads the shared object at `path` (str), so that its symbols resolve when a loop is compiled."""
    if config.DISABLE_JIT:
        _libraries.append(ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL))
    else:
        llvmlite.binding.load_library_permanently(path)


use_shim = use_library


def _external(name, *parameters, result=types.int64):
    """Declares the function `name` of a library of ours; all parameters are 64-bit integers, the result is one or none."""
    if not config.DISABLE_JIT:
        return types.ExternalFunction(name, result(*parameters))

    def stand_in(*arguments):
        function = next(getattr(library, name) for library in _libraries if hasattr(library, name))
        function.restype, function.argtypes = ctypes.c_int64, [ctypes.c_int64] * len(parameters)
        return function(*(int(argument) for argument in arguments))
    stand_in.__name__ = name
    return stand_in


if config.DISABLE_JIT:
    def usleep(microseconds):
        """Gives the core away for about that long."""
        time.sleep(int(microseconds) / 1e6)
        return 0
else:
    usleep = types.ExternalFunction("usleep", types.int32(types.uint32))
    """(microseconds) -> 0; gives the core away for about that long; the C library's own, so it needs no shim."""

_i = types.int64

shim_receive = _external("shim_receive", _i, _i, _i, _i)
"""(port, queue, address of uint64[n], n) -> how many mbuf addresses rte_eth_rx_burst stored there."""
shim_transmit = _external("shim_transmit", _i, _i, _i, _i)
"""(port, queue, address of uint64[n], n) -> how many of these mbufs rte_eth_tx_burst took."""
shim_allocate = _external("shim_allocate", _i, _i, _i)
"""(pool, address of uint64[n], n) -> n, or 0 where the pool has not that many (rte_pktmbuf_alloc_bulk)."""
shim_pool_available = _external("shim_pool_available", _i)
"""(pool) -> how many mbufs are free (rte_mempool_avail_count)."""
shim_release = _external("shim_release", _i, _i)
"""(address of uint64[n], n) -> 0; frees these mbufs with all their segments (rte_pktmbuf_free_bulk)."""
shim_hand_over = _external("shim_hand_over", _i, _i, _i)
"""(ring, address of uint64[n], n) -> how many of these mbufs had room (rte_ring_sp_enqueue_burst)."""
shim_take_over = _external("shim_take_over", _i, _i, _i)
"""(ring, address of uint64[n], n) -> how many mbuf addresses rte_ring_sc_dequeue_burst stored there."""
shim_waiting = _external("shim_waiting", _i)
"""(ring) -> how many mbufs lie in it (rte_ring_count)."""

twin_parse = _external("twin_parse", _i, _i, result=types.void)
twin_lookup = _external("twin_lookup", _i, _i, result=types.void)
twin_rewrite = _external("twin_rewrite", _i, _i, result=types.void)
twin_express = _external("twin_express", _i, _i)
"""(address of a `struct context`, n): the C twins of the kernels of these slots; see twins.py."""
