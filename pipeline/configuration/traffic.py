"""The tables of `mode = "generator"`: what clients and servers say to each other, how many there are, and where."""
import string
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from pipeline.configuration import values
from pipeline.configuration.values import PortRange, choice, seconds, switch, whole

LONGEST_TEXT = 1000
_TEXT_IS = (f"at most {LONGEST_TEXT} ASCII characters, in which {{number}} and {{target}} stand for a target, such as "
            '"{number}\\n"')


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _text(value):
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(value) if field is not None}
        if fields <= {"number", "target"} and len(value.encode("ascii")) <= LONGEST_TEXT:
            value.format(number=0, target="a")
            return value
    except (TypeError, ValueError, AttributeError):
        pass
    raise ValueError(f"must be {_TEXT_IS}")


Text = Annotated[str, PlainValidator(_text), Field(description=_TEXT_IS)]


class Clients(_Section):
    """`[generator.clients]`: the connections that are opened. Limits of 0 are none."""

    connect: values.ListenEndpoint
    targets: tuple[values.TargetId, ...] = Field((), description="a list of ids of [[targets]]; by default all")
    source_addresses: tuple[values.Addresses, ...] = Field(
        (), description='a list of addresses and ranges, such as ["10.1.0.2", "10.1.0.10-10.1.0.19"]')
    source_ports: values.SourcePorts = PortRange(1024, 65535)
    cps_limit: int = whole(0, 0, 100_000_000, " (connections a second)")
    max_open: int = whole(1000, 1, 1 << 24)
    test_size: int = whole(0, 0, 1 << 31, " (connections in all)")


class Servers(_Section):
    """`[generator.servers]`: the targets that the generator is itself, at their addresses and ports."""

    targets: tuple[values.TargetId, ...] = Field((), description="a list of ids of [[targets]]; by default all")


class Traffic(_Section):
    """`[generator]`: what a connection is like, for both ends. Packets of 0 bytes are as long as their text."""

    request: Text = "{number} {target}\n"
    request_packets: int = whole(1, 0, 1 << 20)
    request_bytes: int = whole(64, 0, 1986, " (of each packet's payload)")
    response: Text = "{target} answers\n"
    response_packets: int = whole(1, 0, 1 << 20)
    response_bytes: int = whole(64, 0, 1986, " (of each packet's payload)")
    closes_first: Literal["client", "server"] = choice("client", "client", "server")
    verify: bool = switch(True)
    mss: int | None = whole(None, 64, 1986)
    window: int = whole(65535, 1, 1 << 30)
    window_scale: int | None = whole(None, 0, 14)
    sack: bool = switch(False)
    timestamps: bool = switch(False)
    flight: int = whole(10, 1, 512, " (segments that an end has under way at most)")
    retransmit: float = seconds(0.5, 0.02, 60)
    tries: int = whole(5, 0, 30)
    proxy: values.ConfigurationFile | None = None
    clients: Clients | None = Field(None, description="a table [generator.clients]")
    servers: Servers | None = Field(None, description="a table [generator.servers]")
