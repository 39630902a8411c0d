from pipeline.kernels.express import usual


def express(packets, batch, count, connections, network, outbox, now):
    """Leaves bursts of a single packet to the other stages, and has ours deal with all others.

    Whatever is sent on here has the verdict SENT and has been posted to the outbox; what is left is counted and returned.
    """
    if count == 1:
        return count
    return usual(packets, batch, count, connections, network, outbox, now)
