SMALL_A, SMALL_Z = 97, 122


def change(payload, length, position, tailroom, user):
    """Small letters become capitals. payload[:length] is new; bytes may be deleted, and inserted as far as `tailroom` goes."""
    for at in range(length):
        if SMALL_A <= payload[at] <= SMALL_Z:
            payload[at] -= 32
            user[0] += 1  # eight int64 of the connection's own, 0 at first
    return length
