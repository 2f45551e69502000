"""Deliberate defects. A run with one of them has to fail."""


def reverse():
    "Let this process take the messages of each page in reverse"
    from trytond_fastbus.journal import PostgreSQL
    read = PostgreSQL.read

    def reversed_read(self, *args):
        rows = read(self, *args)
        # The first may be the row that was read last, which has no payload.
        payloads = [row[-1] for row in rows if row[-1]]
        return [
            (*row[:-1], row[-1] and payloads.pop()) for row in rows]

    PostgreSQL.read = reversed_read


def go_forward():
    "Let this process overlook that numbers went back"
    from trytond_fastbus.replay import Replay

    def read(self, until=2 ** 63 - 1):
        after = self._bus.position
        while rows := self._ask(self._journal.read, after, self._size, until):
            rows = [row for row in rows if row[-1]]
            if not rows:
                break
            self._bus.replay(rows)
            after = self._bus.position
        self._bus.end_read(until)

    Replay.read = read


def believe():
    "Let this process believe the numbers in notifications"
    from trytond_fastbus.replay import Replay
    receive_slowly = Replay.receive_slowly

    def believing(self, rest):
        _, number, _ = rest
        receive_slowly(self, rest)
        if number > self._bus.position:
            self._bus.replay([(number, 0., 0., None)])

    Replay.receive_slowly = believing
    go_forward()


DEFECTS = {
    'Reversed': reverse, 'Forward': go_forward, 'Credulous': believe}


def __getattr__(name):
    # trytond.bus imports the configured class from here. Its base class cannot
    # be imported earlier.
    if name not in DEFECTS:
        raise AttributeError(name)
    import trytond_fastbus
    DEFECTS[name]()
    globals()[name] = type(name, (trytond_fastbus.Bus,), {})
    return globals()[name]


def drop_lock(postgresql, database):
    """Let commits number their messages without waiting for each other.

    The numbering then takes a while, so that the overlap really happens.
    """
    function = 'trytond_fastbus_journal_commit'
    lines = ['\t'.join(row) for row in postgresql.execute(
            f"SELECT pg_get_functiondef('{function}'::regproc)", database)]
    kept = [line for line in lines if 'pg_advisory_xact_lock' not in line]
    assert len(kept) < len(lines), lines
    *_, end = (n for n, line in enumerate(kept) if 'RETURN ' in line)
    kept.insert(end, "PERFORM pg_sleep(random() * .05);")
    postgresql.execute('\n'.join(kept), database)
