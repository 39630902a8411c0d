from pipeline.kernels.records import finish

SHORTEST = 1_000_000


def long_ones(records, counters, hot, cold, connection, causes, now):
    """Keeps the records of connections that have lasted a second or longer."""
    if records.enabled[0] == 0:
        return  # engine.detailed_records = false: there is none
    if now - records.work[connection].opened >= SHORTEST:
        finish(records, counters, hot, cold, connection, causes, now)
