"""From what is wrong at a place in the configuration to one sentence that names file, key and value."""
import json
import types
from typing import Annotated, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from pipeline.configuration.values import suggestion

_LONGEST_VALUE = 80


class Fault(NamedTuple):
    """`location` is a tuple of keys and list indices; `sentence` goes on after the key and its value."""

    location: tuple
    sentence: str


def dotted(location):
    """Returns the location as users write it, such as `services[1].listen`."""
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def describe(name, data, fault):
    """Returns the sentence (str) for a Fault in the TOML document `data` (dict) of the file `name`."""
    key = dotted(fault.location)
    try:
        value = data
        for step in fault.location:
            value = value[step]
    except (KeyError, IndexError, TypeError):
        return f"{name}: {key} {fault.sentence}" if key else f"{name}: {fault.sentence}"
    shown = _shown(value)
    if len(shown) > _LONGEST_VALUE:
        shown = shown[:_LONGEST_VALUE - 1] + "…"
    return f"{name}: {key} = {shown} {fault.sentence}"


def _shown(value):
    """Returns a value as TOML writes it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_shown(item)}" for key, item in value.items()) + "}"
    return str(value)


def from_validation(error, model):
    """Returns the Faults of a pydantic ValidationError raised by `model`."""
    details = error.errors(include_url=False)
    places = {detail["loc"] for detail in details}
    # A list loses its wrong items, and is then reported as too short as well.
    return [Fault(detail["loc"], _sentence(detail, model)) for detail in details
            if detail["type"] != "too_short" or not any(len(place) > len(detail["loc"])
                                                        and place[:len(detail["loc"])] == detail["loc"]
                                                        for place in places)]


def _sentence(detail, model):
    """Returns the end of the sentence for one of pydantic's error details."""
    if detail["type"] == "extra_forbidden":
        holder = _annotation_at(model, detail["loc"][:-1])[0]
        return "is not a known key" + suggestion(detail["loc"][-1], list(holder.model_fields))
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    right = _annotation_at(model, detail["loc"])[1] or detail["msg"]
    return f"is missing; it must be {right}" if detail["type"] == "missing" else f"must be {right}"


def _annotation_at(model, location):
    """Returns (the bare type, what would be right there) at `location` within `model`."""
    annotation, right = model, ""
    for step in location:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields[step]
            annotation, right = _bare(field.annotation)[0], field.description or _bare(field.annotation)[1] or right
        elif get_origin(annotation) in (tuple, dict):
            inside = get_args(annotation)
            annotation, words = _bare(inside[0] if get_origin(annotation) is tuple else inside[1])
            right = words or right
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                right = "a table with the keys " + ", ".join(annotation.model_fields)
    return annotation, right


def _bare(annotation):
    """Returns `annotation` without Optional and Annotated, and the description among its metadata or ''."""
    right = ""
    while True:
        if get_origin(annotation) is Annotated:
            described = [item.description for item in annotation.__metadata__ if getattr(item, "description", None)]
            annotation, right = annotation.__origin__, (described or [right])[-1]
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(item for item in get_args(annotation) if item is not type(None))
        else:
            return annotation, right
