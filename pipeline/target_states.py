"""Target states in a running engine: what the operator and the checks say of a target, written where every worker reads it.

A worker reads one word a target without a lock; here alone they are written. What passive health holds for down is each
worker's own (`services.note_failure`).
"""
import threading

from pipeline.configuration.values import suggestion
from pipeline.errors import RunError
from pipeline.kernels import services

RELEASE_WANTED = 2
"""Place in `Targets.health` where a walk over all connections is asked for."""


class TargetStates:
    """The states of a configuration's targets, in the `states` of its workers."""

    def __init__(self, configuration, states, say):
        self.configuration, self.workers, self.say = configuration, states, say
        self.number_of = {target.id: number for number, target in enumerate(configuration.targets)}
        self.asked = dict.fromkeys(self.number_of, "up")
        self.failing = {}
        self._writing = threading.Lock()

    def set(self, identifier, state):
        """The operator puts a target into a state (str); returns all of them, as `listed`. Raises RunError."""
        if identifier not in self.number_of:
            raise RunError(f'"{identifier}" is no target of this engine{suggestion(identifier, list(self.number_of))}')
        if state not in services.STATES:
            raise RunError(f'"{state}" is no state; it must be one of {", ".join(services.STATES)}')
        with self._writing:
            self.asked[identifier] = state
            if state == "up":
                self.failing.pop(identifier, None)
            self._write(identifier)
        return self.listed()

    def checked(self, identifier, fault):
        """A check found a target well (`fault` None), or down because of `fault` (str)."""
        with self._writing:
            before = identifier in self.failing
            if fault is None:
                self.failing.pop(identifier, None)
            else:
                self.failing[identifier] = fault
            self._write(identifier)
        if before != (fault is not None):
            self.say(f"target {identifier} is up again" if fault is None else f"target {identifier} is down: {fault}")

    def _write(self, identifier):
        """Writes what holds of a target into all workers."""
        number, asked = self.number_of[identifier], self.asked[identifier]
        state = "down" if asked == "up" and identifier in self.failing else asked
        for worker in self.workers:
            if state == "up":
                worker.targets.failures[number] = worker.targets.until[number] = 0
            worker.targets.states[number] = services.STATES.index(state)
            if state == "maintenance" and self.configuration.health.release == "reset":
                worker.targets.health[RELEASE_WANTED] += 1

    def listed(self):
        """Returns the targets (dict, JSON-able): each with its state, and who says so."""
        return {"targets": [self.told(identifier) for identifier in self.number_of]}

    def told(self, identifier):
        """Returns what is known of a target (dict)."""
        number, asked = self.number_of[identifier], self.asked[identifier]
        held = sum(bool(worker.targets.until[number]) for worker in self.workers)
        if asked != "up":
            state, why = asked, "operator"
        elif identifier in self.failing:
            state, why = "down", f"check: {self.failing[identifier]}"
        elif held:
            state, why = "down", f"connections failed, at {held} of {len(self.workers)} workers"
        else:
            state, why = "up", ""
        return {"id": identifier, "state": state, "why": why}
