from pipeline.kernels.batch import KIND_TCP, NO_FLOW, PENDING


def watch(packets, base, batch, count, connections, observed, now):
    """Counts TCP packets that belong to no connection [0], those of clients [1] and of targets [2].

    `observed` is shown by run --json and stats --json. It is read while this runs: count in it, keep nothing in it half done.
    """
    for row in range(count):
        if batch.kind[row] == KIND_TCP and batch.verdict[row] == PENDING:
            flow = batch.flow[row]  # connection * 2 + side; its record is connections.hot[flow >> 1]
            observed[0 if flow == NO_FLOW else 1 + (flow & 1)] += 1
