"""The parts of a daemon, each created once with its dependencies."""

from collections.abc import Coroutine
from functools import partial
from typing import Any

from pool_daemon import __version__
from pool_daemon.clock import SystemClock
from pool_daemon.expiry.expirer import Expirer
from pool_daemon.expiry.loop import ExpiryLoop
from pool_daemon.expiry.timer import Timer
from pool_daemon.expiry.watcher import PoolGuards, Watcher
from pool_daemon.expiry.work_queue import Cause, WorkQueue
from pool_daemon.grace_parts import GraceParts
from pool_daemon.guards.brake import Brake
from pool_daemon.guards.clock_guard import ClockGuard
from pool_daemon.guards.gate import Gates, StopGate
from pool_daemon.guards.guards import Guards
from pool_daemon.guards.held_pools import HeldPools
from pool_daemon.guards.leadership import DryRun, Leadership
from pool_daemon.guards.quarantine import Quarantine
from pool_daemon.index_setup import IndexSetup
from pool_daemon.notices.parts import NoticeParts
from pool_daemon.reconcile.findings import Findings
from pool_daemon.reconcile.reconciler import Reconciler
from pool_daemon.reconcile.scans import OrderScan, PoolScan
from pool_daemon.settings import Settings
from pool_daemon.settings.settings import LiveSettings
from pool_daemon.store.changes import open_stream
from pool_daemon.store.client import CommandLog, ServerClock, connect
from pool_daemon.store.events import EventStore, RecentEvents
from pool_daemon.store.holds import HoldStore
from pool_daemon.store.journal import Journal
from pool_daemon.store.lease import LeaseStore
from pool_daemon.store.pool_counts import PoolCounts
from pool_daemon.store.quarantine import QuarantineStore
from pool_daemon.store.reconciliation import ReconciliationStore
from pool_daemon.store.records import Actor, ActorKind
from pool_daemon.store.setup import build_index, missing_indexes
from pool_daemon.store.store import Store
from pool_daemon.store.topology import PrimaryChanges
from pool_daemon.store.waiting_orders import WaitingOrders
from pool_daemon.telemetry.endpoint.pool_views import PoolViews
from pool_daemon.telemetry.endpoint.routes import Routes
from pool_daemon.telemetry.endpoint.server import Server
from pool_daemon.telemetry.forecast import Forecast
from pool_daemon.telemetry.health import StalenessLimits
from pool_daemon.telemetry.heartbeat import Heartbeat, Notifier
from pool_daemon.telemetry.observer import Observer
from pool_daemon.telemetry.order_watch import OrderWatch
from pool_daemon.telemetry.reports import Reports
from pool_daemon.views.grace_view import grace_views
from pool_daemon.views.view_reader import ViewReader


class Wiring:
    """All parts of a daemon on the MongoDB at `uri`; none runs yet.

    Without the lease (`leased` is False) the daemon acts whether or not another does. That is safe: every effect is
    conditional on the state in the database. In a `dry_run` nothing is written: no
    lease is taken, and the tasks that exist to write do not start; the brake only says what it would hold.
    """

    def __init__(
        self, *, settings: Settings, uri: str, identity: str, stop: StopGate, leased: bool = True, dry_run: bool = False
    ) -> None:
        self.live = LiveSettings(settings)
        self._settings = settings
        self._leased = leased and not dry_run
        self._identity = settings.lease.identity or identity
        self._dry_run = dry_run
        self.stop = stop
        self.clock = SystemClock()
        self.observer = Observer(identity=self._identity, version=__version__, clock=self.clock, dry_run=dry_run)
        self.primaries = PrimaryChanges()
        self.database = connect(
            uri=uri,
            name=settings.database.name,
            timeout_seconds=settings.database.timeout_seconds,
            server_selection_seconds=settings.database.server_selection_seconds,
            listeners=[CommandLog(self.observer.command_finished), self.primaries],
        )
        self.queue = WorkQueue()
        self.timer = Timer(clock=self.clock, on_set=self.observer.timers_set)
        self.actor = Actor(
            ActorKind.DAEMON,
            self._identity,
            term=lambda: self.leadership.term,
            pass_number=lambda: self.reports.pass_number,
        )
        self.journal = Journal(
            events=EventStore(database=self.database, actor=self.actor),
            clock=self.clock,
            observer=self.observer,
            dry_run=dry_run,
        )
        self._make_guards()
        self._make_optional()
        self.reports = Reports(
            observer=self.observer,
            settings=self.live.view(lambda now: now.log),
            dry_run=dry_run,
            term=lambda: self.leadership.term,
        )
        self._make_expiry()
        self._make_telemetry()

    def _make_guards(self) -> None:
        settings, clock = self._settings, self.clock
        self.leadership = Leadership(
            store=LeaseStore(database=self.database, identity=self._identity, seconds=settings.lease.seconds),
            clock=clock,
            on_acquired=self.queue.request_full_scan,
            observer=self.observer,
            record=self.journal.add,
        )
        self.clock_guard = ClockGuard(
            read_server_clock=ServerClock(database=self.database).now,
            clock=clock,
            settings=self.live.view(lambda now: now.clock),
            opened=self.queue.request_full_scan,
            observer=self.observer,
        )
        self.gate = Gates([self.stop, self.clock_guard, *([self.leadership] if self._leased else [])])
        brake_settings = self.live.view(lambda now: now.brake)
        self.held_pools = HeldPools(
            holds=HoldStore(
                database=self.database, identity=self._identity, dry_run=self._dry_run, record=self.journal.add
            ),
            clock=clock,
            settings=brake_settings,
            observer=self.observer,
            look_again=self.queue.retry,
        )
        self.brake = Brake(
            held=self.held_pools, pool_counts=PoolCounts(database=self.database), settings=brake_settings, clock=clock
        )
        self.quarantine = Quarantine(
            store=QuarantineStore(database=self.database, identity=self._identity, dry_run=self._dry_run),
            settings=self.live.view(lambda now: now.retry),
            clock=clock,
            look_again=self.queue.retry,
            observer=self.observer,
            record=self.journal.add,
        )

    def _make_optional(self) -> None:
        """Make the parts that exist only where the settings ask for them."""
        settings = self._settings
        self.notices: NoticeParts | None = None
        if settings.notices.before and not self._dry_run:
            shared: dict[str, Any] = {"gate": self.gate, "clock": self.clock, "observer": self.observer}
            self.notices = NoticeParts(settings=settings, database=self.database, sleep=self.timer.sleep, **shared)
        self.grace: GraceParts | None = None
        if settings.grace.seconds:
            self.grace = GraceParts(
                settings=settings,
                database=self.database,
                notices=self.notices,
                queue=self.queue,
                observer=self.observer,
                sleep=self.timer.sleep,
            )
        self.graces = None if self.grace is None else self.grace.reader

    def _make_expiry(self) -> None:
        clock = self.clock
        self.watcher = Watcher(
            open_stream=lambda token: open_stream(self.database, token=token),
            queue=self.queue,
            clock=clock,
            settings=self.live.view(lambda now: now.stream),
            observer=self.observer,
            guards=PoolGuards(recent_writes=self.brake.unexpected, is_failing=self.quarantine.knows),
        )
        self.expirer = Expirer(
            store=Store(
                database=self.database,
                clock=clock,
                actor=self.actor,
                dry_run=self._dry_run,
                ends=None if self.notices is None else self.notices.ends,
                grace=self.graces,
            ),
            queue=self.queue,
            guards=Guards(gate=self.gate, brake=self.brake, quarantine=self.quarantine),
            reports=self.reports,
            clock=clock,
            settings=self.live.view(lambda now: now.expiry),
        )
        self.loop = ExpiryLoop(
            expirer=self.expirer,
            queue=self.queue,
            timer=self.timer,
            clock=clock,
            settings=self._settings.expiry,
            observer=self.observer,
        )
        self.reconciler = _reconciler(self)
        self.index_setup = IndexSetup(
            missing=lambda: missing_indexes(
                self.database,
                notices=self.notices is not None,
                grace=self.grace is not None,
                keep_days=self.live.current.events.keep_days,
            ),
            build=lambda index: build_index(self.database, index),
            built=self.queue.request_full_scan,
            observer=self.observer,
        )

    def _make_telemetry(self) -> None:
        settings = self._settings
        self.server = self.pool_views = None
        if settings.http.enabled:
            if settings.http.pool_views:
                graces = grace_views(self.database, settings.grace)
                reader = ViewReader(database=self.database, actor=self.actor, graces=graces)
                self.pool_views = PoolViews(read=reader.read)
            routes = Routes(
                observer=self.observer,
                staleness_limits=self.staleness_limits,
                clock=self.clock,
                allowed_hosts=settings.http.allowed_hosts,
                pool_views=self.pool_views,
            )
            self.server = Server(
                host=settings.http.host,
                port=settings.http.port,
                respond=routes.respond,
                on_problem=self.observer.http_seen,
            )
        self.notifier = Notifier()
        self.heartbeat = Heartbeat(
            observer=self.observer,
            staleness_limits=self.staleness_limits,
            notifier=self.notifier,
            clock=self.clock,
            leadership=DryRun() if self._dry_run else self.leadership if self._leased else None,
        )
        self.forecast = Forecast(
            pool_counts=PoolCounts(database=self.database),
            recent_events=RecentEvents(database=self.database),
            observer=self.observer,
            clock=self.clock,
            watermark=lambda: self.queue.watermark,
            sleep=partial(self.timer.sleep, "forecast"),
        )

        self.order_watch = OrderWatch(
            orders=WaitingOrders(database=self.database),
            observer=self.observer,
            clock=self.clock,
            sleep=partial(self.timer.sleep, "waiting orders"),
        )

    def staleness_limits(self) -> StalenessLimits:
        """Return the limits on the age of each sign of life, by the settings in force; safe in any thread."""
        settings, stream = self._settings, self.live.current.stream
        return StalenessLimits.of(
            stall_seconds=stream.stall_seconds,
            max_sleep_seconds=settings.expiry.max_sleep_seconds,
            lease_seconds=settings.lease.seconds if self._leased else None,
        )

    def background_tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return, by name, the tasks that run beside the loop as long as the daemon does; each is to be awaited."""
        self.primaries.follow(self.watcher.primary_changed)
        tasks = {
            "watcher": self.watcher.run(),
            "clock guard": self.clock_guard.run(),
            "forecast": self.forecast.run(),
            "order watch": self.order_watch.run(),
        }
        if self.grace is not None:
            tasks |= self.grace.tasks()
            if not self._dry_run:
                tasks["grace"] = self.grace.reviewer(gate=self.gate, clock=self.clock, actor=self.actor).run()
        if self.pool_views is not None:
            tasks["pool views"] = self.pool_views.run()
        if self._leased:
            tasks["leadership"] = self.leadership.run()
        if self._dry_run:
            self.observer.indexes_made()  # or that they are missing: a dry run builds none
        else:
            tasks |= {
                "setup": self.index_setup.run(),
                "brake": self.held_pools.run(self.gate),
                "quarantine": self.quarantine.run(),
                "journal": self.journal.run(),
            }
            if self._settings.reconcile.enabled:
                tasks["reconciler"] = self.reconciler.run()
            tasks |= {} if self.notices is None else self.notices.tasks()
        return tasks

    def look_at_missed(self, pool_id: int) -> None:
        """Add an immediate check of a pool that was missed."""
        self.queue.add(pool_id, at=int(self.clock.now()), cause=Cause.MISSED)


def _reconciler(parts: Wiring) -> Reconciler:
    """Make the reconciler of a daemon."""
    store = ReconciliationStore(database=parts.database, actor=parts.actor, grace=parts.graces)
    findings = Findings(
        on_overdue=parts.look_at_missed, on_unreadable=parts.reports.unreadable, observer=parts.observer
    )
    settings = parts.live.view(lambda now: now.reconcile)
    return Reconciler(
        scans=[
            OrderScan(
                store=store.orders,
                findings=findings,
                throttle=parts.expirer.throttle,
                clock=parts.clock,
                settings=settings,
            ),
            PoolScan(
                store=store,
                findings=findings,
                clock=parts.clock,
                settings=settings,
                settled_through=lambda: parts.queue.settled_through,
            ),
        ],
        findings=findings,
        gate=parts.gate,
        stop=parts.stop.stopped,
        settings=settings,
        sleep=partial(parts.timer.sleep, "reconciliation"),
    )
