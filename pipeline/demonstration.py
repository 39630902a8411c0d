"""The demonstration: a real client asks through the engine, and each answer is checked for who gave it.

What is asked follows from the configuration: one request for each rule of each service whose targets are web
servers of the bed. The client is curl in the client's namespace; every request is a connection of its own.
"""
import collections
import shutil
import statistics
import subprocess
from typing import NamedTuple

from pipeline.bed import address_of
from pipeline.configuration.models import BALANCING
from pipeline.errors import RunError
from pipeline.web_server import HEADER

REMEMBERED = 1000
"""So many latest latencies the summary's quantiles are taken from."""
ANSWER_WITHIN = 5
"""Seconds after which curl gives a request up."""


class Request(NamedTuple):
    """A request and the names of the hosts that may answer it."""

    url: str
    host_header: str | None
    servers: frozenset


class Demonstration:
    """Requests for as long as the `with` lasts; `tick` a few times a second keeps them going.

    All calls come from the thread that made the bed; none of them waits. `tick` raises RunError where there is no curl.
    """

    def __init__(self, configuration, bed, say=print):
        self.bed = bed
        self.say = say
        self.client = next((host for host in configuration.bed.hosts if host.role == "client"), None)
        self.requests = list(requests_of(configuration)) if self.client else []
        self.right = self.wrong = self.failed = 0
        self.answers = collections.Counter()
        self.latest_fault = None
        self._latencies = collections.deque(maxlen=REMEMBERED)
        self._slowest = 0.0
        self._curl = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self._curl is not None:
            self._curl.kill()
            self._curl.communicate()
            self._curl = None

    def tick(self):
        """Count what the client has got since, and have it ask again once it has all its answers."""
        if self._curl is not None:
            if self._curl.poll() is None:
                return
            for line in self._curl.communicate()[0].splitlines():
                self._count(*line.split("\t"))
            self._curl = None
        if self.requests:
            if shutil.which("curl") is None:
                raise RunError("curl, the client of the demonstration, is not installed (apt-get install curl)")
            self._curl = self.bed.run_in(self.client.name, self._arguments(), stdin=subprocess.DEVNULL,
                                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def summary(self) -> dict:
        """Counts of requests; answers by server; latencies in milliseconds, from the latest ones."""
        latencies = sorted(self._latencies)
        return {"requests": self.right + self.wrong + self.failed, "right": self.right, "wrong": self.wrong,
                "failed": self.failed, "answers": dict(sorted(self.answers.items())),
                "latency_ms": {"median": _milliseconds(statistics.median(latencies)) if latencies else None,
                               "p99": _milliseconds(latencies[len(latencies) * 99 // 100]) if latencies else None,
                               "slowest": _milliseconds(self._slowest) if latencies else None},
                "latest_fault": self.latest_fault}

    def hint(self) -> str:
        """A command that sends a request of one's own, or an empty string if there is nothing to ask."""
        if not self.requests:
            return ""
        first = self.requests[0]
        header = f"-H 'Host: {first.host_header}' " if first.host_header else ""
        return f"ip netns exec {self.bed.namespace_of(self.client.name)} curl {header}{first.url}"

    def _arguments(self):
        """One curl for all requests at once. What it writes: index, exit code, status, seconds and server."""
        arguments = ["curl", "--parallel", "--parallel-immediate"]
        for index, request in enumerate(self.requests):
            arguments += ["--next"] if index else []
            arguments += ["--silent", "--max-time", ANSWER_WITHIN, "--header", "Connection: close", "--output",
                          "/dev/null", "--write-out",
                          f"{index}\t%{{exitcode}}\t%{{http_code}}\t%{{time_total}}\t%header{{{HEADER.lower()}}}\n"]
            arguments += ["--header", f"Host: {request.host_header}"] if request.host_header else []
            arguments.append(request.url)
        return arguments

    def _count(self, index, exit_code, status, seconds, server):
        request = self.requests[int(index)]
        if exit_code != "0":
            self.failed += 1
            self.latest_fault = f"{request.url} got no answer (curl exit status {exit_code})"
            return
        self._latencies.append(float(seconds))
        self._slowest = max(self._slowest, float(seconds))
        self.answers[server] += 1
        if status == "200" and server in request.servers:
            self.right += 1
        else:
            self.wrong += 1
            self.latest_fault = (f"{request.url} was answered by {server or 'an unknown server'} with status {status}, "
                                 f"not by {' or '.join(sorted(request.servers))}")


def requests_of(configuration):
    """Yields the Requests that the services' rules stand for, as far as their targets are web servers of the bed."""
    servers = {(address_of(host), host.web_port): host.name for host in configuration.bed.hosts if host.web}
    names = {target.id: servers.get((str(target.ip), target.port)) for target in configuration.targets}
    for service in configuration.services:
        url = f"http://{service.listen.address}" + (f":{service.listen.port}" if service.listen.port != 80 else "")
        if service.select == "http_path":
            asked = [(url + rule.match, None, _of_rule(service, rule)) for rule in service.rules]
        elif service.select == "http_host":
            asked = [(url + "/", rule.match, _of_rule(service, rule)) for rule in service.rules]
        elif service.select in BALANCING:
            asked = [(url + "/", None, service.members)]
        else:
            asked = []
        asked += _by_default(service, url)
        for address, host_header, targets in asked:
            expected = frozenset(names[target] for target in targets)
            if None not in expected:
                yield Request(address, host_header, expected)


def _of_rule(service, rule):
    """Returns the ids of the targets that a rule leads to."""
    return next((group.targets for group in service.groups if group.name == rule.group), [rule.target])


def _by_default(service, url):
    """A request that no rule matches, where the service has a target for such."""
    if not service.rules or service.default_target is None:
        return []
    if service.select == "http_host":
        return [(url + "/", "no-such-host.example", [service.default_target])]
    if any(rule.match == "/" for rule in service.rules):
        return []
    return [(url + "/", None, [service.default_target])]


def _milliseconds(seconds):
    return round(seconds * 1000, 3)
