"""Continuous writes, edits and deletes with a random fault every few seconds: `python -m tests.faults.soak --minutes 30`."""

import argparse
import json
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import psycopg2

from app.stack import ports
from tests.factories.processes import LocalProcess, python, stop_all, wait_until
from tests.faults import invariants
from tests.faults.report import measured
from tests.faults.traffic import Traffic
from tests.faults.world import PROFILES, World

_SAMPLE_SECONDS = 5.0
_DRAIN_SECONDS = 300.0
_READY_SECONDS = 120.0
_WEIGHTS = {
    "child_killed": 4,
    "worker_killed": 3,
    "dispatcher_killed": 3,
    "broker_killed_and_restarted": 2,
    "redis_flushed": 2,
    "connections_terminated": 3,
    "postgresql_restarted_at_once": 1,
}
_BACKLOG = "SELECT count(*) FROM memory_system.embeddings_queue WHERE state IN ('pending', 'processing')"
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('nexus_worker', 'nexus_app')"
_DEAD_TUPLES = """
    SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables
    WHERE relname IN ('embeddings_queue', 'zep_episodic_memory', 'episode_chunks', 'workers')
"""


class Soak:
    """One soak.

    Args:
        broker: redis or rabbitmq.
        minutes: How long the attack lasts.
        fault_seconds: Seconds between two faults.
        writes_per_second: How often the clients write.
    """

    def __init__(self, broker: str, minutes: float, fault_seconds: float, writes_per_second: float) -> None:
        self._world = World(broker, PROFILES["soak"])
        self._seconds = minutes * 60
        self._fault_seconds = fault_seconds
        self._port = ports.choose(0)
        self._agents = tuple(f"soak-{number}-{uuid4().hex[:6]}" for number in range(3))
        self._traffic = Traffic(self._world, f"http://127.0.0.1:{self._port}", self._agents, writes_per_second)
        self._samplers = [
            invariants.Sampler(self._world.superuser, self._world.broker.depth, agent, every=_SAMPLE_SECONDS) for agent in self._agents
        ]
        self._api: LocalProcess | None = None
        self._faults: Counter[str] = Counter()
        self._samples: list[dict[str, float]] = []
        self._choose = random.Random()

    def run(self) -> dict[str, Any]:
        """Start everything, attack, drain, check, stop everything, and return the figures."""
        try:
            self._start()
            self._attack()
            print("draining", flush=True)
            self._traffic.stop()
            return self._figures(self._drain())
        finally:
            for sampler in self._samplers:
                sampler.stop()
            if self._api is not None:
                self._api.stop()
            self._world.stop()
            stop_all()

    def _start(self) -> None:
        world = self._world
        world.start()
        metrics = world.settings.data_dir / "metrics"
        told = {"HOST": "127.0.0.1", "PORT": str(self._port), "API_PROCESSES": "1", "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
        self._api = world.process("api", python("gunicorn", "-c", "app/gunicorn_config.py", "app.wsgi:app"), told)
        self._api.start()
        world.ensure(workers=2, dispatchers=2, beats=1)
        wait_until(self._api_answers, _READY_SECONDS, "the API does not answer", every=0.2)
        for sampler in self._samplers:
            sampler.start()
        self._traffic.start()

    def _api_answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self._port}/health/live", trust_env=False, timeout=5).status_code == 200
        return False

    def _attack(self) -> None:
        started = time.monotonic()
        next_fault = started + self._fault_seconds
        while (now := time.monotonic()) < started + self._seconds:
            if now >= next_fault:
                next_fault = now + self._fault_seconds
                (name,) = self._choose.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
                self._strike(name)
                print(f"{now - started:6.0f} s  {name}  {dict(self._traffic.done)}", flush=True)
            self._look()
            time.sleep(min(_SAMPLE_SECONDS, max(0.1, next_fault - time.monotonic())))

    def _strike(self, name: str) -> None:
        faults: dict[str, Callable[[], object]] = {
            "child_killed": lambda: self._world.kill_child(self._choose.choice(self._world.workers)),
            "worker_killed": self._choose.choice(self._world.workers).process.kill,
            "dispatcher_killed": self._choose.choice(self._world.dispatchers).kill,
            "broker_killed_and_restarted": self._restart_broker,
            "redis_flushed": self._world.redis.admin.flushall,
            "connections_terminated": self._terminate_connections,
            "postgresql_restarted_at_once": lambda: self._world.restart_postgres("immediate"),
        }
        faults[name]()
        self._faults[name] += 1
        # What an operator's process manager does.
        self._world.ensure(workers=2, dispatchers=2, beats=1, waits=False)

    def _restart_broker(self) -> None:
        self._world.broker.kill()
        self._world.broker.start()

    def _terminate_connections(self) -> None:
        self._world.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename IN ('nexus_worker', 'nexus_app') ORDER BY random() LIMIT 3"
        )

    def _look(self) -> None:
        sample = {process.name: _resident_mib(process) for process in [*self._world.processes(), self._api] if process is not None}
        with suppress(psycopg2.Error):
            sample["connections"] = float(self._world.sql.one(_CONNECTIONS))
            sample["dead_tuples"] = float(self._world.sql.one(_DEAD_TUPLES))
            self._samples.append(sample)

    def _drain(self) -> float:
        world = self._world
        world.switches.clear()
        world.ensure(workers=2, dispatchers=2, beats=1)
        seconds = 0.0
        with suppress(AssertionError):
            seconds = wait_until(lambda: not world.sql.one(_BACKLOG), _DRAIN_SECONDS, "the backlog does not drain", every=0.2)
        return seconds

    def _figures(self, drain_seconds: float) -> dict[str, Any]:
        sql, traffic = self._world.sql, self._traffic
        accepted = [each for ids in traffic.accepted.values() for each in ids]
        stored = {str(row[0]) for row in sql("SELECT episode_id FROM nexus_memory.zep_episodic_memory")}
        violations = [found for agent, ids in traffic.accepted.items() for found in invariants.broken(sql, agent, ids, 5)]
        violations += invariants.breaches(sql, 5)
        return {
            "measured": measured(),
            "broker": self._world.broker.name,
            "minutes": round(self._seconds / 60, 1),
            "episodes": len(accepted),
            "edits": traffic.done["edits"],
            "deletes": traffic.done["deletes"],
            "drift": int(sql.one("SELECT drift FROM memory_system.accounting_identity()")),
            "lost": len({str(each) for each in accepted if each not in traffic.touched} - stored),
            "embedded_twice": int(sql.one(invariants.TWICE, [str(each) for each in accepted])),
            "stale_served": max(sampler.stale for sampler in self._samplers),
            "stuck": int(sql.one(_BACKLOG)),
            "dead": int(sql.one("SELECT count(*) FROM memory_system.embeddings_queue WHERE state = 'dead'")),
            "drain_seconds": round(drain_seconds, 1),
            "most_messages": max(sampler.most_messages for sampler in self._samplers),
            "longest_idle_transaction_seconds": round(max(sampler.longest_idle_seconds for sampler in self._samplers), 2),
            "faults": dict(self._faults),
            "answers_that_were_tried_again": dict(traffic.failures),
            "memory_mib": {name: self._thirds(name) for name in sorted({name for sample in self._samples for name in sample} - _COUNTS)},
            **{name: self._thirds(name) for name in sorted(_COUNTS)},
            "violations": violations[:20],
        }

    def _thirds(self, name: str) -> tuple[float, float]:
        """Return the median of a figure over the first and over the last third of the time."""
        values = [sample[name] for sample in self._samples if sample.get(name)]
        third = max(1, len(values) // 3)
        return (round(statistics.median(values[:third]), 1), round(statistics.median(values[-third:]), 1)) if values else (0.0, 0.0)


_COUNTS = {"connections", "dead_tuples"}


def _resident_mib(process: LocalProcess) -> float:
    """Return what a process and its children hold in memory; 0 while it does not run."""
    try:
        family = [psutil.Process(process.pid), *process.children()] if process.is_running else []
        return float(sum(member.memory_info().rss for member in family)) / 2**20
    except psutil.Error:
        return 0.0


def is_sound(figures: dict[str, Any]) -> bool:
    """Return whether nothing was lost, repeated, stale or left."""
    return not any(figures[name] for name in ("drift", "lost", "embedded_twice", "stale_served", "stuck", "violations"))


def main(arguments: Sequence[str]) -> int:
    """Run the soak as the command line says; return 0 when every invariant held."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--fault-seconds", type=float, default=10.0)
    parser.add_argument("--writes-per-second", type=float, default=10.0)
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    parser.add_argument("--report", type=Path, default=None, help="file of the figures as JSON")
    chosen = parser.parse_args(arguments)
    # A terminated soak ends like an interrupted one: everything is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    figures = Soak(chosen.broker, chosen.minutes, chosen.fault_seconds, chosen.writes_per_second).run()
    text = json.dumps(figures, indent=1)
    print(text)
    if chosen.report is not None:
        chosen.report.parent.mkdir(parents=True, exist_ok=True)
        chosen.report.write_text(text + "\n", encoding="utf-8")
    return 0 if is_sound(figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
