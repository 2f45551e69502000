"""Defects on purpose, for which a run has to fail."""


def reverse():
    "Have the listener of this process take each batch from its end"
    from trytond_fastbus import replay
    put = replay.put

    def reversed_put(database, bus, notifications):
        put(database, bus, notifications[::-1])

    replay.put = reversed_put


def __getattr__(name):
    # trytond.bus imports the class of [bus] class from here, and what it
    # derives from can't be imported earlier.
    if name != 'Reversed':
        raise AttributeError(name)
    import trytond_fastbus
    reverse()

    class Reversed(trytond_fastbus.Bus):
        "The bus with the order of each batch reversed"

    globals()[name] = Reversed
    return Reversed


def drop_lock(postgresql, database):
    """Have commits number their messages without waiting for each other.

    What the lock forbids then takes a while, so that it does happen.
    """
    function = 'trytond_fastbus_journal_commit'
    lines = ['\t'.join(row) for row in postgresql.execute(
            f"SELECT pg_get_functiondef('{function}'::regproc)", database)]
    kept = [line for line in lines if 'pg_advisory_xact_lock' not in line]
    assert len(kept) < len(lines), lines
    *_, end = (n for n, line in enumerate(kept) if 'RETURN ' in line)
    kept.insert(end, "PERFORM pg_sleep(random() * .05);")
    postgresql.execute('\n'.join(kept), database)
