"""What stands for the functions that a flow table or a timer wheel of another kind need not have: they only ask for memory ahead."""
from .jit import kernel


@kernel
def ask_for_key(buckets, hashed):
    """Asks for nothing."""


@kernel
def ask_for_timer(wheel, timer):
    """Asks for nothing."""


@kernel
def ask_for_place(wheel, timer):
    """Asks for nothing."""


@kernel
def ask_for_last(wheel, timer, before):
    """Asks for nothing."""


@kernel
def comes_earlier(wheel, timer, deadline):
    """Says no: nothing is asked for ahead."""
    return False
