"""Loops over a flow table in bulk, by the stop-watch; flow_table.py puts the kernels of another table in the place of these."""
from pipeline.kernels.flow_hash import hash_key
from pipeline.kernels.jit import loop
from pipeline.kernels.native import ordered_ticks

# the table from here
from pipeline.kernels.flow_table import insert, remove
from pipeline.kernels.lookup import bucketed as lookup
# the table to here


@loop
def insert_all(buckets, keys, entries, burst, taken):
    """Inserts entries with their keys; `taken` (int64) gets the ticks of each burst. Returns how many found a place."""
    placed = 0
    for number in range(len(taken)):
        before = ordered_ticks()
        for place in range(number * burst, min(number * burst + burst, len(entries))):
            hashed = hash_key(keys[0, place], keys[1, place], keys[2, place], keys[3, place])
            placed += insert(buckets, hashed, entries[place])
        taken[number] = ordered_ticks() - before
    return placed


@loop
def remove_all(buckets, keys, entries, burst, taken):
    """Takes entries out by their keys; `taken` (int64) gets the ticks of each burst. Returns how many were there."""
    there = 0
    for number in range(len(taken)):
        before = ordered_ticks()
        for place in range(number * burst, min(number * burst + burst, len(entries))):
            hashed = hash_key(keys[0, place], keys[1, place], keys[2, place], keys[3, place])
            there += remove(buckets, hashed, entries[place])
        taken[number] = ordered_ticks() - before
    return there


@loop
def look_up(batch, buckets, hot, keys, burst, taken, found):
    """Looks keys up; `taken` (int64) gets the ticks of each burst. `found` (int64[2]): how many, sum of their entries."""
    for number in range(len(taken)):
        for row in range(burst):
            batch.source[row] = keys[0, number * burst + row]
            batch.destination[row] = keys[1, number * burst + row]
            batch.source_port[row] = keys[2, number * burst + row]
            batch.destination_port[row] = keys[3, number * burst + row]
        before = ordered_ticks()
        lookup(batch, burst, buckets, hot)
        taken[number] = ordered_ticks() - before
        for row in range(burst):
            found[0] += batch.flow[row] >= 0
            found[1] += batch.flow[row]
