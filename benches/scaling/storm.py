"""A simulation of clients that come back to their servers after a restart.

Clients are counted, not played one by one: a step of time moves some of them
from one place to another, and no one is ever made or lost.
"""
import random
from collections import Counter, deque
from dataclasses import dataclass

STEP = .05
# When the kernel of a client sends its SYN again, in seconds
SYN_AGAIN = [1, 2, 4, 8, 16, 32]
# A client's delay after a failure, doubling
DELAY_MAX = 600


@dataclass
class Storm:
    """What is restarted of what: times in seconds, rates a second.

    check_cpu and check_database are the CPU that the check of a session takes
    of a server, of which one core may run Python, and of PostgreSQL.
    """
    clients: int
    servers: int
    restarted: int = 1
    kill: bool = False
    # Whether the sockets stay open while their server is away
    held: bool = True
    drain: float = 10
    start: float = 2
    backlog: int = 4096
    accept_rate: float = 20_000
    check_cpu: float = .9e-3
    check_database: float = .45e-3
    database_cores: float = 8
    # Cores for all of the servers, where they share one host
    server_cores: float = None
    # Checks a second that all of the servers have anyway
    background: float = 0
    hold_time: float = 20
    seed: int = 1

    def check_rate(self, busy):
        "Checks a second of one server, while so many of them check"
        cores = 1
        if self.server_cores:
            cores = min(1, self.server_cores / busy)
        rate = cores / self.check_cpu
        return max(rate - self.background / self.servers, 0)

    @property
    def database_rate(self):
        return max(
            self.database_cores / self.check_database - self.background, 0)


def run(storm, limit=3600):
    """Until all wait again: the seconds that took, and what happened.

    Raises TimeoutError if some do not within the limit.
    """
    random_ = random.Random(storm.seed)
    servers = storm.servers
    share, rest = divmod(storm.clients, servers)
    waiting = [share + (place < rest) for place in range(servers)]
    # When it may serve again; before that nobody is taken in
    up = [0.] * servers
    queues = [deque() for _ in range(servers)]  # [since, clients]
    backlog = [0] * servers
    # By the step at which they come: (server or None, delay, tries), clients
    coming = {}
    seen = Counter()
    peak, checked_most = 0, 0

    def come(step, key, clients):
        if clients:
            coming.setdefault(step, Counter())[key] += clients

    steps_of = lambda seconds: max(1, round(seconds / STEP))  # noqa: E731
    for place in range(storm.restarted):
        gone, waiting[place] = waiting[place], 0
        if storm.kill:
            up[place] = storm.start
            seen['cut'] += gone
            come(steps_of(1), (None, 2, 0), gone)
        else:
            up[place] = storm.drain + storm.start
            steps = steps_of(storm.drain)
            for step in range(steps):
                part = gone * (step + 1) // steps - gone * step // steps
                come(step + 1, (None, 1, 0), part)

    step = 0
    while sum(waiting) < storm.clients:
        step += 1
        time = step * STEP
        if time > limit:
            raise TimeoutError(f"{sum(waiting)} clients wait: {seen}")
        arrived = coming.pop(step, Counter())
        for (place, delay, tries), clients in arrived.items():
            parts = {place: clients}
            if place is None:
                parts = _spread(clients, _open(storm, up, time), random_)
            for place, part in parts.items():
                if time < up[place] and not storm.held:
                    seen['refused'] += part
                    come(step + steps_of(delay),
                        (None, min(delay * 2, DELAY_MAX), 0), part)
                    continue
                room = max(storm.backlog - backlog[place], 0)
                if time >= up[place]:
                    room += int(storm.accept_rate * STEP)
                taken = min(part, room)
                backlog[place] += taken
                if late := part - taken:
                    # Its packet is dropped, and sent again to the same.
                    seen['dropped'] += late
                    wait = SYN_AGAIN[min(tries, len(SYN_AGAIN) - 1)]
                    come(step + steps_of(wait), (place, delay, tries + 1),
                        late)
        database = storm.database_rate * STEP + seen.pop('_spare', 0)
        checked = 0
        for place in range(servers):
            if time < up[place]:
                continue
            taken = min(backlog[place], int(storm.accept_rate * STEP))
            if taken:
                backlog[place] -= taken
                queues[place].append([time, taken])
        busy = [place for place in range(servers) if queues[place]]
        random_.shuffle(busy)
        for number, place in enumerate(busy):
            able = min(
                storm.check_rate(len(busy)) * STEP,
                (database - checked) / (len(busy) - number))
            # What is no whole client is left to chance.
            able = int(able) + (random_.random() < able % 1)
            able = min(able, int(database) - checked)
            while able > 0 and queues[place]:
                since, clients = queues[place][0]
                done = min(able, clients)
                able -= done
                checked += done
                waiting[place] += done
                # Who waits for long is answered empty, and asks again.
                seen['empty'] += done * int((time - since) / storm.hold_time)
                if done == clients:
                    queues[place].popleft()
                else:
                    queues[place][0][1] -= done
        seen['_spare'] = min(database - checked, 1) if busy else 0
        checked_most = max(checked_most, checked)
        peak = max(peak, sum(
                clients for queue in queues for _, clients in queue))
        total = (sum(waiting) + sum(backlog)
            + sum(sum(counts.values()) for counts in coming.values())
            + sum(clients for queue in queues for _, clients in queue))
        assert total == storm.clients, "a client was lost"
    seen.pop('_spare', None)
    return {
        'seconds': round(step * STEP, 2), 'unchecked_most': peak,
        'checks_most': round(checked_most / STEP),
        'polls_most': max(waiting),
        **{name: seen[name]
            for name in ['empty', 'refused', 'dropped', 'cut']}}


def _open(storm, up, time):
    "The servers that a connection may come to"
    if storm.held:
        return range(storm.servers)
    alive = [place for place in range(storm.servers) if time >= up[place]]
    return alive or range(storm.servers)


def _spread(clients, places, random_):
    "Spread clients over the places, as a hash does"
    share, rest = divmod(clients, len(places))
    parts = dict.fromkeys(places, share)
    for place in random_.sample(list(places), rest):
        parts[place] += 1
    return {place: part for place, part in parts.items() if part}
