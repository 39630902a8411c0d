"""The engine: opens the ports, assembles the states, composes the loop, and starts, watches and stops the workers."""
import contextlib
import datetime
import threading
import time

import pyroute2

from pipeline import assemble, compose, exception_interface, generator_report, isolation, profile_report, profiling, snapshot
from pipeline.access_lists import reload_lists
from pipeline.configuration import load
from pipeline.errors import ConfigurationError, RunError
from pipeline.kernel_neighbours import KernelNeighbours
from pipeline.network_namespace import entered
from pipeline.numa import ANY, node_of
from pipeline.profile_marks import stage_names
from pipeline.processor_counters import ProcessorCounters, counted
from pipeline.progress import compiling_aloud
from pipeline.kernels.counters import TOTAL_LOOPS
from pipeline.kernels.hand_over import AT_HAND, BY_ADDRESS, BY_HASH, BY_PORT
from pipeline.health_checks import HealthChecks
from pipeline.target_states import TargetStates
from pipeline.steering import ALONE, key_of, shares_of, steering_rules
from pipeline.worker import Workers, on_core, read_ticks

EXHAUSTED = {
    "connections_exhausted": "engine.connections: all are in use, new connections are refused",
    "opening_exhausted": "engine.opening_connections: as many as may be opening are, new connections are refused",
    "flow_table_full": "the flow table is full, new connections are refused",
    "source_ports_exhausted": "services.source_ports: none is free toward a target, its new connections are refused",
    "held_pool_empty": "engine.held_connections: all are in use, first payload has to be sent again by the clients",
    "waiting_room_full": "engine.waiting_segments: as many as may wait do (or waiting_per_connection of one connection), "
                         "out-of-order segments have to be sent again",
    "edit_log_full": "engine.edits: all are in use, connections whose payload is changed further are reset",
    "first_copy_gone": "engine.first_copies: all are in use, connections that send again what was given up for others are reset",
    "no_mbuf": "engine.mbufs: the pool is empty, segments of the engine's own are left out",
    "mbufs_short": "engine.mbufs: few are left, new connections are refused",
    "hand_over_full": "a worker takes what others hand over to it too slowly, packets are dropped",
    "neighbours_exhausted": "the neighbour table is full, clients of new addresses on-link are refused",
}
"""What is said, once, when something runs out; service goes on for those already in."""
MEMORY_BESIDE_POOL = 128
"""MiB that DPDK gets beyond the mbufs: rings, queues, its own tables."""
MBUF_BYTES = 2432
HANDED_OVER = 1024
"""Packets of a port that may wait for a worker on the ring of another one."""


class Engine:
    """An engine for a validated `configuration` (pipeline.configuration.Configuration); `say` takes lines of text.

    `start`, then `snapshot`, `finished_records` and `wait` as often as wanted, `request_stop`, `wait`, `close`.
    A generator with a proxy of its own (`proxy` in its `[generator]`) starts that as well, as another Engine in the same
    process: `host` is the generator's, whose pool the proxy uses, and the other ends of whose cables. `recorders`
    (recorders.Recorders, which ends after the engine) is for what is to be recorded.
    """

    def __init__(self, configuration, say=print, host=None, recorders=None, profiled=False):
        self.configuration, self.say, self.host, self.recorders = configuration, say, host, recorders
        traffic = configuration.generator
        self._proxy_settings = load(traffic.proxy) if traffic and traffic.proxy else None
        self.proxy, self.cables, self._profiled, self._counters = None, {}, profiled, []
        self.workers = self.started = None
        self.states = []
        self.ports, self.pool = [], None
        self.neighbours = self.target_states = None
        self._around = contextlib.ExitStack()
        self._stops, self._said, self._timer = 0, set(), None
        self._begin = lambda: None
        self._begun = time.monotonic()

    def start(self):
        """Opens the ports, compiles the loop and starts the worker; raises RunError, with everything closed again."""
        try:
            settings, checked = self.configuration, self.configuration.engine.isolation == "checked"
            if checked:
                isolation.refuse_unchecked()
            devices, arena, surround, shares = self._open()
            if self._proxy_settings:
                self.proxy = Engine(self._proxy_settings, self.say, host=self)
                self.proxy.start()
            self.started = datetime.datetime.now(datetime.timezone.utc)
            ticks, macs = read_ticks(), [port.mac for port in self.ports]
            states = []
            for share, device, core in zip(shares, devices, settings.engine.cores, strict=True):
                state, selects = on_core(core, assemble.make_state, settings, device, arena, macs, ticks, self._hertz, share)
                states.append(self.recorders.equip(state) if self.recorders else state)
            self.states = isolation.isolated(states, checked)
            payloads = settings.payload_kernels
            kind = type(devices[0]).__module__.rpartition(".")[2].removesuffix("_device")
            with compose.compiling(), compiling_aloud(self.say):
                run = compose.compose(settings.kernels, selects, kind, settings.engine.mode, payloads, checked,
                                      self.recorders.source if self.recorders else compose.NO_TAPS, profiled=self._profiled)
                compose.first_call(run, self.states[0], settings.kernels, [*selects, *payloads])
            if settings.generator and settings.generator.clients:
                self.state.connections.settings.most_open[0] = 0
            if settings.engine.mode == "proxy":
                self.target_states = TargetStates(settings, self.states, self.say)
                self._around.enter_context(HealthChecks(settings, self.target_states))
            self.workers = Workers(run, self.states, settings.engine.cores, surround)
            if self.recorders:
                known = {target.id: assemble.static_mac(target) for target in settings.targets if target.linux_if is not None}
                self.recorders.begin(settings, macs, self.states, round(self.started.timestamp() * 1e9), known)
            self._begun = time.monotonic()
            self.workers.start()
            if self.neighbours:
                self.neighbours.start(self.states)
            self._begin()
        except BaseException:
            self.close()
            raise

    def begin(self):
        """Lets a generator's clients begin, now that whoever they connect to is there."""
        traffic = self.configuration.generator
        if traffic and traffic.clients:
            self.state.connections.settings.most_open[0] = traffic.clients.max_open

    @property
    def state(self):
        """The state of the first worker, or None before `start`."""
        return self.states[0] if self.states else None

    def _open(self):
        """Opens pool and ports; returns the workers' devices, the arena, what a worker's thread has to run within, and
        each worker's share (`steering.Share`)."""
        if all(port.driver == "pcap" for port in self.configuration.ports):
            return self._open_recordings()
        from pipeline.io.shim import DpdkError, DpdkMissing
        try:
            return self._open_dpdk()
        except (DpdkError, DpdkMissing, MemoryError) as error:
            raise RunError(str(error)) from error

    def _open_recordings(self):
        from pipeline.playback import Playback
        playback = self._around.enter_context(contextlib.closing(Playback(self.configuration)))
        self.ports, self.pool, self._hertz = playback.ports, playback.pool, measured_hertz()
        self._begin = playback.start
        return [self.pool.device], self.pool.arena, contextlib.nullcontext, [ALONE]

    def _open_dpdk(self):
        from pipeline.io import dpdk
        from pipeline.kernels import native
        if self.host is None:
            self._open_environment()
        else:
            self.pool, self._hertz = self.host.pool, self.host._hertz
        settings = self.configuration
        namespace = settings.engine.network_namespace
        with entered(namespace) if namespace else contextlib.nullcontext():
            if settings.exception_ports:
                exception_interface.check_local_ports(settings)
            for port in settings.ports:
                self.ports.append(self._open_port(port))
                self.say(f"port {port.name}: {port.device.partition(',')[0]}, MAC {self.ports[-1].mac:012x}")
            if settings.exception_ports:
                self._open_exception_ports()
        native.use_shim(str(dpdk.PATH))
        workers, rings = len(settings.engine.cores), ()
        if workers > 1:
            rings = self._around.enter_context(contextlib.closing(dpdk.HandOverRings(
                workers, len(self.ports), HANDED_OVER, self.pool))).addresses
        devices = [dpdk.device(self.pool, self.ports, worker, rings) for worker in range(workers)]
        return devices, self.pool.arena, dpdk.registered_thread, self._steer()

    def _steer(self):
        """Returns the Share of each worker, and has NICs steer what targets send where they are to.

        Raises ConfigurationError where a device cannot do what the configuration asks of it.
        """
        engine = self.configuration.engine
        if len(engine.cores) == 1:
            return [ALONE]
        ports = self.ports[:len(self.configuration.ports)]
        without = next((port for port in ports if not port.rss), None)
        for key, asked in (("steering", engine.steering), ("flow_steering", engine.flow_steering)):
            if asked == "rss" and without is not None:
                raise ConfigurationError(f'engine.{key} = "rss": port {without.name} ({without.driver}) does not spread packets by a '
                                         'hash that we know; it must be "software"')
        spreads = without is None
        tables = [port.rss_table for port in ports] if spreads else [None]
        predictable = spreads and len({table.tobytes() for table in tables}) == 1
        client = AT_HAND if spreads and engine.steering != "software" else BY_HASH
        if engine.flow_steering in ("port", "address", "auto") and (ruled := self._install_rules(client, tables[0])):
            return ruled
        predicted = engine.flow_steering == "rss" or (engine.flow_steering == "auto" and predictable)
        return shares_of(engine, (client, BY_HASH if predicted else BY_PORT), tables[0])

    def _install_rules(self, client, table):
        """Has the NICs steer what targets send, by port or address; returns the workers' shares, or [] where "auto" does without.

        `client`: how clients' packets find their worker; `table`: the redirection table of the ports.
        """
        from pipeline.io import flow_rules
        asked = self.configuration.engine.flow_steering
        shares = shares_of(self.configuration.engine, (client, BY_ADDRESS if asked == "address" else BY_PORT), table, True)
        rules = [rule for port in range(len(self.configuration.ports))
                 for rule in steering_rules(self.configuration, shares[0], port)]
        if asked == "auto":
            reached = {rule.queue for rule in rules} == set(range(len(shares)))
            if not reached or any(flow_rules.accepts(port, [rule for rule in rules if rule.port == number]) is not None
                                  for number, port in enumerate(self.ports)):
                return []
        self._around.enter_context(contextlib.closing(flow_rules.FlowRules(self.ports, rules)))
        self.say(f"{len(rules)} rules of the NIC bring what targets send to the {len(shares)} workers")
        return shares

    def _open_exception_ports(self):
        """Opens the exception ports behind the others and makes the kernel at home there; within the engine's namespace."""
        from pipeline.io import dpdk
        settings = self.configuration
        for port in settings.ports:
            if port.driver == "net_af_packet":
                self._around.enter_context(exception_interface.deaf(port.interface))
        with pyroute2.IPRoute() as netlink:
            indices = {}
            for number, exception in settings.exception_ports:
                port, mac = settings.ports[number], self.ports[number].mac
                self.ports.append(dpdk.Port(exception.device, settings.port_names[len(self.ports)], self.pool,
                                            queues=len(settings.engine.cores), rxd=exception.rxd, txd=exception.txd, mtu=port.mtu))
                routes = [(route.network, route.gateway) for route in settings.routes
                          if settings.on_link(route.gateway)[0] == number]
                index = exception_interface.settle(netlink, exception.interface, mac, port.mtu,
                                                   settings.interface_addresses(number), routes)
                indices[index] = number
                self.say(f"port {port.name}: all that is not ours goes to the kernel, at {exception.interface}")
        self.neighbours = self._around.enter_context(contextlib.closing(
            KernelNeighbours(settings.engine.network_namespace, indices, self.say)))

    def _open_environment(self):
        """Starts DPDK and makes the pools, one a NUMA node of the workers, with room for the mbufs of a proxy beside this engine."""
        from pipeline.io import dpdk
        settings = self.configuration
        engine, proxy = settings.engine, self._proxy_settings
        mbufs = engine.mbufs + (proxy.engine.mbufs if proxy else 0)
        pages = {"auto": None, "always": True, "never": False}[engine.huge_pages]
        environment = self._around.enter_context(contextlib.closing(dpdk.Environment(
            memory=mbufs * MBUF_BYTES // (1 << 20) + MEMORY_BESIDE_POOL,
            pci=[port.device for port in settings.ports if port.driver == "pci"], hugepages=pages)))
        self._hertz = environment.hertz
        nodes = [node_of(core) for core in engine.cores] if environment.hugepages else [ANY]
        self.pool = dpdk.NodePools("mbufs", mbufs, nodes)
        for port in settings.ports:
            if port.driver == "ring":
                size = 1 << max(port.rxd, port.txd).bit_length()
                self.cables[port.device] = self._around.enter_context(
                    contextlib.closing(dpdk.Cable(port.device.removeprefix("ring:"), self.pool, size)))

    def _open_port(self, port):
        """Opens one port; this end, or as the proxy of a generator the other end, of a cable."""
        from pipeline.io import dpdk
        if port.driver == "ring":
            cables = (self.host or self).cables
            if self.host is None and self._proxy_settings is None:
                raise ConfigurationError(f'port {port.name}: device = "{port.device}" is an end of a cable, and nothing is at the '
                                         "other; it needs a generator and a proxy in one process, see configs/generator.toml")
            return cables[port.device].ports[0 if self.host is None else 1]
        engine = self.configuration.engine
        mac = None if port.mac is None else int(port.mac.replace(":", ""), 16)
        return dpdk.Port(port.device, port.name, self.pool, queues=len(engine.cores), rxd=port.rxd, txd=port.txd, mtu=port.mtu,
                         mac=mac, promiscuous=engine.mode == "forward", rss_key=key_of(engine) if len(engine.cores) > 1 else None)

    def snapshot(self):
        """Returns all counters (dict, JSON-able); may be called at any time."""
        settings, states = self.configuration, self.states
        shown = {"name": settings.engine.name, "mode": settings.engine.mode, "uptime": time.monotonic() - self._begun,
                 "state": self.condition}
        if not states:
            return shown
        pool = self.pool
        shown |= {
            "workers": self._of_workers(),
            "ports": snapshot.of_ports(settings, self.ports, states),
            "pool": {"mbufs": pool.mbufs, "available": pool.available} if pool else {},
        }
        if settings.engine.mode == "generator":
            return {**shown, "generator": generator_report.of_generator(settings, self.state),
                    "neighbours": snapshot.of_neighbours(settings, states),
                    **({"proxy": self.proxy.snapshot()} if self.proxy else {})}
        return {
            **shown,
            "targets": [{**target, **self.target_states.told(target["id"])} if self.target_states else target
                        for target in snapshot.of_targets(settings, states)],
            "services": snapshot.of_services(settings, states),
            "neighbours": snapshot.of_neighbours(settings, states),
        }

    def _of_workers(self):
        report = generator_report if self.configuration.engine.mode == "generator" else snapshot
        return [report.of_worker(core, state) for core, state in zip(self.configuration.engine.cores, self.states, strict=True)]

    def targets(self):
        """Returns the targets' states (dict, JSON-able)."""
        if self.target_states is None:
            raise RunError(f'an engine in mode = "{self.configuration.engine.mode}" has no target states')
        return self.target_states.listed()

    def set_target(self, identifier, state):
        """Puts a target into a state (strs); returns all targets' states."""
        self.targets()
        return self.target_states.set(identifier, state)

    def reload(self, path):
        """Takes the lists of the configuration at `path` (str) in every worker; returns what is told (dict). Raises RunError."""
        try:
            return reload_lists(self.states, self.configuration, load(path), self._passed)
        except ConfigurationError as error:
            raise RunError(str(error)) from error

    def _passed(self):
        """Waits until every worker has begun a pass after this: none has what it read before in its hands any more."""
        before, deadline = [int(state.counters.totals[TOTAL_LOOPS]) for state in self.states], time.monotonic() + 1
        while any(state.counters.totals[TOTAL_LOOPS] < loops + 2 for state, loops in zip(self.states, before, strict=True)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.001)

    @property
    def complete(self):
        """Whether there is nothing left to do: a generator's test of limited size is over."""
        return self.configuration.engine.mode == "generator" and generator_report.is_complete(self.configuration, self.state)

    @property
    def condition(self):
        """`starting`, `running`, `draining` or `stopped`."""
        if self.workers is None:
            return "starting"
        if not self.workers.running:
            return "stopped"
        return "draining" if self._stops else "running"

    def start_profile(self, every, warm_up):
        """Has one burst in `every` sampled from `warm_up` seconds on."""
        if not self._profiled:
            raise RunError("the profile cannot be switched on: the engine was started without --profile, so there are no marks in its loop")
        self._end_counters()
        self._counters = [ProcessorCounters(worker.thread.native_id) for worker in self.workers.members]
        profiling.start(self.states, every, warm_up, self._hertz)

    def stop_profile(self):
        """Ends the sampling; what has been counted stays."""
        profiling.stop(self.states, self.workers is not None and self.workers.running)

    def profile(self):
        """Returns what the profile has found so far (dict, JSON-able): see profile_report.report."""
        found = profile_report.report(self.states, stage_names(self.workers.members[0].run), self._hertz)
        return {**found, "counters": counted(self._counters)}

    def _end_counters(self):
        while self._counters:
            self._counters.pop().close()

    def finished_records(self):
        """Returns the session records finished since the last call (list of dict), oldest first."""
        if not self.configuration.engine.detailed_records or self.configuration.engine.mode == "generator":
            return []
        return snapshot.taken_records(self.configuration, self.states, self.started)

    def request_stop(self):
        """First call: no new connections, the others may end within `drain_timeout`. Second call: at once."""
        self._stops += 1
        if self.workers is None:
            return
        if self._stops > 1 or self.configuration.engine.drain_timeout == 0:
            self.workers.stop()
            return
        self.workers.drain()
        self._timer = threading.Timer(self.configuration.engine.drain_timeout, self.workers.stop)
        self._timer.daemon = True
        self._timer.start()

    def wait(self, timeout):
        """Waits at most `timeout` seconds; returns whether the workers have ended. Raises RunError if one died."""
        ended = self.workers.ended(timeout)
        self._warn()
        if self.neighbours is not None and self.neighbours.error is not None:
            raise RunError(f"the kernel's neighbours can no longer be followed: {self.neighbours.error!r}") from self.neighbours.error
        if self._stops:
            if self.workers.idle:
                self.workers.stop()
        elif (lost := self.workers.lost()) is not None:
            raise RunError(f"the worker on core {lost.core} ended without being told to")
        if self.proxy is not None:
            if ended and not self.proxy._stops:
                self.proxy.request_stop()
            return self.proxy.wait(timeout if ended else 0) and ended
        return ended

    def _warn(self):
        """Says once what has run out, and that another host has one of our addresses."""
        for state in self.states:
            seen = snapshot.drops_and_notices(state.counters)
            for reason in EXHAUSTED.keys() & seen["drops"].keys() - self._said:
                self._said.add(reason)
                self.say(f"{EXHAUSTED[reason]} (counted as {reason})")
            if "duplicate_address" in seen["notices"] and "duplicate_address" not in self._said:
                self._said.add("duplicate_address")
                address, high, low = state.network.duplicate
                self.say(f"another host, {snapshot.mac_text(high, low)}, uses our address {assemble.address_text(address)}")

    def close(self):
        """Stops the worker if it runs, closes ports and pool; safe to call at any time, also twice."""
        if self.proxy is not None:
            self.proxy.close()
        if self._timer is not None:
            self._timer.cancel()
        if self.workers is not None and self.workers.running:
            self._stops += 1
            self.workers.stop()
            for worker in self.workers.members:
                worker.thread.join(10)
        self._end_counters()
        self._around.close()


def measured_hertz():
    """Returns how many ticks of the kernels' clock there are in a second, measured over 20 ms where no DPDK knows."""
    first, start = read_ticks(), time.perf_counter_ns()
    time.sleep(0.02)
    return (read_ticks() - first) * 1e9 / (time.perf_counter_ns() - start)
