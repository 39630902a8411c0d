"""What can go wrong in a way that the user is told in a sentence instead of a traceback."""


class PipelineError(Exception):
    """An error whose text is meant for the user; `exit_status` is what the command line ends with."""

    exit_status = 1


class ConfigurationError(PipelineError):
    """Bad input. `faults` is a list of sentences (str), each naming file, key, value and what would be right."""

    exit_status = 2

    def __init__(self, *faults):
        super().__init__("\n".join(faults))
        self.faults = list(faults)


class RunError(PipelineError):
    """A run that could not start or did not end as it should."""

    exit_status = 1


class IsolationError(RunError):
    """A worker's memory is not its own."""
