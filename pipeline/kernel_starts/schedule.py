def order(inputs):
    """Every input in every pass, but each pass begins with another one. `passed` is the kernel's to count in."""
    count = inputs.order.shape[0]
    first = inputs.passed[0] % count
    inputs.passed[0] += 1
    for number in range(count):
        inputs.order[number] = (first + number) % count
    return count  # fewer: the others wait, and nobody but this kernel sees to it that they do not wait for ever
