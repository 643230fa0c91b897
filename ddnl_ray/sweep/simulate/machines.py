"""Nodes and tasks in simulated time: a discrete-event loop over ends of tasks, losses, returns and starts of nodes."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ddnl_ray.errors import RequestError
from ddnl_ray.seeds import SeedTree
from ddnl_ray.sweep.schema import ResourcesSection
from ddnl_ray.sweep.simulate.cluster import Cluster

NEARLY = 1e-6
OFF, STARTING, UP, AWAY = "off", "starting", "up", "away"


@dataclass(eq=False)
class Task:
    """Something that takes a share of a node for a while.

    Attributes:
        name: Its name.
        seconds: How long it works, interruptions left out.
        on_end: Called when it has ended.
        checkpoint_s: How often it saves its work; infinity: never.
        kept: Seconds of work that a checkpoint holds.
        attempt: How often it was started.
        started: When it was started last.
        first: When it was started first.
        waits: Since when it waits for a place.
        node: Where it runs.
    """

    name: str
    seconds: float
    on_end: Callable[[Task], None]
    checkpoint_s: float = math.inf
    kept: float = 0.0
    attempt: int = 0
    started: float = 0.0
    first: float | None = None
    waits: float = 0.0
    node: Node | None = None


@dataclass(eq=False)
class Node:
    """A node; ``turn`` counts its starts, so that events of an earlier life are known as such."""

    index: int
    state: str = OFF
    slots: int = 0
    turn: int = 0
    paid_since: float = 0.0
    idle_since: float = 0.0
    tasks: dict[str, Task] = field(default_factory=dict)


@dataclass
class Hours:
    """Seconds times GPUs (cores, where tasks take no GPU) of all nodes that are paid for.

    Attributes:
        total: From the start of each node to its end.
        busy: With work that counted.
        lost: With work that was done again, or never.
        idle: The rest, with the starting of nodes.
    """

    total: float = 0.0
    busy: float = 0.0
    lost: float = 0.0
    idle: float = 0.0


class Machines:
    """A cluster in simulated time on which every task takes the same share.

    Args:
        cluster: The cluster.
        resources: What a task takes.

    Raises:
        RequestError: A task does not fit on a node.
    """

    def __init__(self, cluster: Cluster, resources: ResourcesSection) -> None:
        self.cluster = cluster
        gpus = cluster.gpus / cluster.num_nodes
        per_node = math.floor(cluster.cpus_per_node / resources.cpu + NEARLY)
        if resources.gpu:
            whole = math.floor(gpus) * math.floor(1 / resources.gpu + NEARLY)  # a task's share is of one GPU
            per_node = min(per_node, whole if resources.gpu <= 1 else math.floor(gpus / resources.gpu + NEARLY))
        if per_node < 1:
            raise RequestError(
                f"a trial needs cpu: {resources.cpu:g} and gpu: {resources.gpu:g}, but a node of the cluster has "
                f"{cluster.cpus_per_node:g} and {gpus:g}; change resources or the cluster"
            )
        self.per_node, self.slots = per_node, per_node * cluster.num_nodes
        self.unit = "GPU" if resources.gpu else "core"
        self.share = resources.gpu or resources.cpu
        self.size = gpus if resources.gpu else cluster.cpus_per_node
        self.nodes = [Node(index) for index in range(cluster.num_nodes)]
        self.now = 0.0
        self.hours = Hours()
        self.preemptions = 0
        self.longest_wait = 0.0
        self.most_running = 0
        self.half_at = 0.0
        """When at least half of the places were last in use."""
        self._losses = SeedTree.root(cluster.seed).child("simulate", "nodes").numpy()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._waiting: deque[Task] = deque()
        self._running = self._paid = 0
        if not cluster.autoscale:
            for node in self.nodes:
                self._start(node)

    def at(self, time: float, what: Callable[[], object]) -> None:
        """Let something happen at a time; what is asked for first happens first."""
        self._count += 1
        heapq.heappush(self._events, (time, self._count, what))

    def submit(self, task: Task) -> None:
        """Let a task run as soon as there is a place; tasks start in the order in which they come."""
        task.waits = self.now
        self._waiting.append(task)

    def run(self, refill: Callable[[], None]) -> None:
        """Let time pass until no task is left.

        Args:
            refill: Called after everything that happens, to submit more.
        """
        refill()
        self._place()
        while self._running or self._waiting:
            time, _, what = heapq.heappop(self._events)
            self._pass_until(time)
            what()
            refill()
            self._place()

    def stop(self) -> list[Task]:
        """End every task where it stands; return them, the work that each has done in ``kept``."""
        stopped = [task for node in self.nodes for task in node.tasks.values()]
        for task in stopped:
            self._leave(task)
            self.hours.busy += self.share * (self.now - task.started)
            task.kept += self.now - task.started
        stopped += self._waiting
        self._waiting.clear()
        return stopped

    def close(self) -> None:
        """Give every node back."""
        for node in self.nodes:
            self._give_back(node, OFF)

    def _pass_until(self, time: float) -> None:
        passed = time - self.now
        self.hours.idle += passed * (self._paid * self.size - self._running * self.share)
        if 2 * self._running >= self.slots:
            self.half_at = time
        self.now = time

    def _place(self) -> None:
        """Start what waits, on the fullest nodes first so that others can be given back."""
        nodes = sorted((node for node in self.nodes if node.slots), key=lambda node: (node.slots, node.index))
        for node in nodes if self._waiting else ():
            while node.slots and self._waiting:
                self._begin(self._waiting.popleft(), node)
        if self.cluster.autoscale and self._waiting:
            coming = sum(node.state == STARTING for node in self.nodes)
            wanted = math.ceil(len(self._waiting) / self.per_node) - coming
            for node in [node for node in self.nodes if node.state == OFF][: max(0, wanted)]:
                self._start(node)

    def _begin(self, task: Task, node: Node) -> None:
        task.attempt += 1
        task.started, task.node = self.now, node
        task.first = self.now if task.first is None else task.first
        self.longest_wait = max(self.longest_wait, self.now - task.waits)
        node.slots -= 1
        node.tasks[task.name] = task
        self._running += 1
        self.most_running = max(self.most_running, self._running)
        attempt = task.attempt
        self.at(self.now + task.seconds - task.kept, lambda: self._end(task, attempt))

    def _end(self, task: Task, attempt: int) -> None:
        if task.node is None or task.attempt != attempt:
            return
        self.hours.busy += self.share * (self.now - task.started)
        self._leave(task)
        task.on_end(task)

    def _leave(self, task: Task) -> None:
        node = task.node
        assert node is not None
        task.node = None
        del node.tasks[task.name]
        node.slots += node.state == UP
        self._running -= 1
        if not node.tasks and node.state == UP:
            self._watch_idle(node)

    def _start(self, node: Node) -> None:
        node.state, node.paid_since = STARTING, self.now
        node.turn += 1
        self._paid += 1
        turn = node.turn
        self.at(self.now + self.cluster.start_s, lambda: self._come_up(node, turn))

    def _come_up(self, node: Node, turn: int) -> None:
        if node.turn != turn or node.state != STARTING:
            return
        node.state, node.slots = UP, self.per_node
        if self.cluster.preempt_per_hour:
            lives = float(self._losses.exponential(3600 / self.cluster.preempt_per_hour))
            self.at(self.now + lives, lambda: self._take_away(node, turn))
        self._watch_idle(node)

    def _watch_idle(self, node: Node) -> None:
        node.idle_since, turn = self.now, node.turn
        if self.cluster.autoscale:
            self.at(self.now + self.cluster.idle_s, lambda: self._stop_idle(node, turn))

    def _stop_idle(self, node: Node, turn: int) -> None:
        idle = self.now - node.idle_since
        if node.turn == turn and node.state == UP and not node.tasks and idle >= self.cluster.idle_s - NEARLY:
            self._give_back(node, OFF)

    def _take_away(self, node: Node, turn: int) -> None:
        """Lose a node: its tasks go back to the head of the queue, with the work that their checkpoints hold."""
        if node.turn != turn or node.state != UP:
            return
        self.preemptions += 1
        self._give_back(node, AWAY)
        for task in reversed(list(node.tasks.values())):
            self._leave(task)
            elapsed = self.now - task.started
            done = task.kept + elapsed
            saved = task.checkpoint_s * (done // task.checkpoint_s) if math.isfinite(task.checkpoint_s) else 0.0
            kept = max(task.kept, saved)
            self.hours.busy += self.share * (kept - task.kept)
            self.hours.lost += self.share * (done - kept)
            task.kept, task.waits = kept, self.now
            self._waiting.appendleft(task)
        self.at(self.now + self.cluster.return_s, lambda: self._come_back(node))

    def _come_back(self, node: Node) -> None:
        node.state = OFF
        if not self.cluster.autoscale:
            self._start(node)

    def _give_back(self, node: Node, state: str) -> None:
        if node.state in (STARTING, UP):
            self._paid -= 1
            self.hours.total += self.size * (self.now - node.paid_since)
        node.state, node.slots = state, 0
