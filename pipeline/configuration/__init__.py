"""The configuration: read from TOML, validated, and checked for whether its parts fit together."""
import pathlib
import tomllib

from pydantic import ValidationError

from pipeline.configuration import checks, faults
from pipeline.configuration.models import (  # noqa: F401
    SLOTS,
    Bed,
    Configuration,
    Engine,
    Host,
    NextHop,
    Port,
    PortFaults,
    Route,
    Rule,
    Service,
    Target,
    Timeouts,
)
from pipeline.configuration.traffic import Clients, Servers, Traffic  # noqa: F401
from pipeline.configuration.values import REFUSE, SELECTS, Endpoint, PortRange  # noqa: F401
from pipeline.errors import ConfigurationError


def load(path):
    """Returns the Configuration in the TOML file at `path`; raises ConfigurationError."""
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); "
                                 "it must be a TOML file, such as configs/two_port.toml") from error
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: byte {error.start} is not UTF-8, which TOML has to be") from error
    return parse(text, str(path))


def parse(text, name):
    """Returns the Configuration in `text` (TOML); raises ConfigurationError with every fault found.

    `name` is what messages call the file; its folder is where relative names of files are looked for.
    Whether parts fit together is looked at only once each part by itself is right.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name}: not TOML: {error}") from error
    except RecursionError as error:
        raise ConfigurationError(f"{name}: not a configuration: nested too deeply") from error
    try:
        configuration = Configuration.model_validate(data, context={"folder": str(pathlib.Path(name).parent)})
    except ValidationError as error:
        found = faults.from_validation(error, Configuration)
    else:
        found = list(checks.faults(configuration))
    if found:
        raise ConfigurationError(*(faults.describe(name, data, fault) for fault in found))
    return configuration


def warnings(configuration):
    """Returns sentences (list of str) about what is allowed but looks unintended."""
    return [f"{faults.dotted(warning.location)} {warning.sentence}" for warning in checks.warnings(configuration)]
