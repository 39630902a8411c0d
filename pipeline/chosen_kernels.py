"""`--kernel SLOT=KERNEL` and the like: kernels that the command line puts in the place of those that a configuration names."""
from pipeline.configuration import checks, faults
from pipeline.configuration.models import RULE_SELECTS
from pipeline.configuration.values import suggestion
from pipeline.errors import ConfigurationError
from pipeline.kernel_places import place_from
from pipeline.slots import OF_SERVICES, SLOTS, names

SERVICE_KEYS = {"select": ("select",), "payload": ("payload_to_target", "payload_to_client"),
                "payload_to_target": ("payload_to_target",), "payload_to_client": ("payload_to_client",)}
"""What may be named beside the slots of [kernels], and the keys of every service that it sets."""


def _place(said, slot, kernel):
    """Returns a kernel's short name or place; a file's name is taken from the current folder."""
    if ":" not in kernel:
        if kernel not in names(slot):
            raise ConfigurationError(f'{said}: "{kernel}" is none of our kernels for this slot{suggestion(kernel, names(slot))}'
                                     '; or name "package.module:function" or "file.py:function"')
        return kernel
    return place_from(kernel, said, "SLOT=KERNEL, with the name of one of our kernels, ")


def _with(service, keys, replaced):
    """Returns a service with these keys, without the payload rules of the directions in `replaced`."""
    rules = tuple(rule for rule in service.payload_rules if rule.direction not in replaced)
    return service.model_copy(update={**keys, "payload_rules": rules})


def override(configuration, choices, option="--kernel"):
    """Returns a Configuration with the kernels of `choices` ("SLOT=KERNEL", given by `option`); raises ConfigurationError.

    What each service names for itself is set for all services.
    """
    kernels, keys = dict(configuration.kernels), {}
    for text in choices:
        said, (slot, equals, kernel) = f"{option} {text}", text.partition("=")
        known = [*(slot for slot in SLOTS if slot not in OF_SERVICES), *SERVICE_KEYS]
        if not equals or slot not in known:
            raise ConfigurationError(f"{said}: must be SLOT=KERNEL, such as lookup=my.py:probe"
                                     + ("" if slot in known else f'; "{slot}" is no slot{suggestion(slot, known)}'))
        if slot in SERVICE_KEYS:
            place = _place(said, "select" if slot == "select" else "payload", kernel)
            keys.update(dict.fromkeys(SERVICE_KEYS[slot], place))
        else:
            kernels[slot] = _place(said, slot, kernel)
    for key, direction in (("payload_to_target", "to_target"), ("payload_to_client", "to_client")):
        if key in keys:  # instead of all payload kernels there
            keys.setdefault("payload_rules", set()).add(direction)
    replaced = keys.pop("payload_rules", set())
    if "select" in keys and keys["select"] not in RULE_SELECTS:
        keys["rules"] = ()  # nobody looks at them then, which in a file would be a mistake
    made = configuration.model_copy(update={
        "kernels": kernels, "services": tuple(_with(service, keys, replaced) for service in configuration.services)})
    found = list(checks.faults(made))
    if found:
        raise ConfigurationError(*(f"{option} {f' {option} '.join(choices)}: {faults.dotted(fault.location)} {fault.sentence}"
                                   for fault in found))
    return made
