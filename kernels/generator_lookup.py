"""Finds the generator's end for every segment: a client's by arithmetic, a server's in the flow table.

In passes, so that what is far away in memory has been asked for by the time it is needed.
"""
from numpy import int64

from .batch import NO_FLOW
from .flow_hash import hash_key
from .flow_table import BUCKET_BYTES, find, home_of, slots_with, tag_of
from .generator_ends import END
from .jit import kernel
from .native import address_of, prefetch_many, record_at, trailing_zeros

END_BYTES = END.itemsize


@kernel
def client_number(batch, row, ends, settings):
    """Returns the number of the client that a segment's destination names, -1 where it is none of ours."""
    nearness = batch.destination[row] - settings.first_address
    place = batch.destination_port[row] - settings.first_port
    if nearness < 0 or nearness >= ends.source_number.shape[0] or place < 0 or place >= settings.ports:
        return NO_FLOW
    if batch.source[row] != settings.address or batch.source_port[row] != settings.port:
        return NO_FLOW
    address = ends.source_number[nearness]
    return address * settings.ports + place if address >= 0 else NO_FLOW


@kernel
def ask_for_ends(batch, count, ends):
    """Stores in `flow` the number of each client, and asks for its record, for a server's bucket otherwise, and then for the
    record that this names. Rows that are no TCP get harmless values."""
    settings = record_at(ends.settings, 0)
    first_bucket, first_end = address_of(ends.buckets), address_of(ends.hot)
    for row in range(count):
        hashed = hash_key(batch.source[row], batch.destination[row], batch.source_port[row], batch.destination_port[row])
        number = client_number(batch, row, ends, settings)
        batch.hash[row], batch.flow[row] = hashed, number
        bucket_line = first_bucket + home_of(ends.buckets, hashed) * BUCKET_BYTES
        prefetch_many(first_end + number * END_BYTES if number >= 0 else bucket_line)
    for row in range(count):
        if batch.flow[row] == NO_FLOW:
            bucket = record_at(ends.buckets, home_of(ends.buckets, batch.hash[row]))
            found = slots_with(bucket, tag_of(batch.hash[row]))
            if found != 0:
                prefetch_many(first_end + (int64(bucket.entry[trailing_zeros(found)]) >> 1) * END_BYTES)


@kernel
def server_number(batch, row, ends):
    """Returns the number of the server that has a segment's connection now, -1 where there is none."""
    entry = find(ends.buckets, ends.hot, batch.hash[row], batch.source[row], batch.destination[row],
                 batch.source_port[row], batch.destination_port[row])
    return entry >> 1 if entry >= 0 else NO_FLOW
