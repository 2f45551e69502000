"""Shows a message on its way through a real Tryton server: make demo.

It creates a Tryton database on SQLite or, with the argument postgresql, on a
throw-away PostgreSQL. It starts trytond with the route of notify.py, and
trytond-bus, which finds the messages in the journal. client.py, which speaks
only HTTP, asks trytond for a notification and waits for it at trytond-bus.
With KEEP=1 the servers keep running.
"""
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

EXAMPLES = Path(__file__).parent
sys.path.insert(0, str(EXAMPLES.parent / 'tests'))

from support.postgresql import PostgreSQL  # noqa: E402
from support.server import BusServer, TrytondServer, create_tryton  # noqa: E402

DATABASE = 'demo'


def main(backend='sqlite'):
    if backend not in {'sqlite', 'postgresql'}:
        return f"DB must be sqlite or postgresql, not {backend}"
    # Without this, the servers would keep running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    password = secrets.token_hex(6)
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        sections = {
            'bus': {
                'allow_subscribe': True,
                'class': 'trytond_fastbus.Bus',
                'journal': True,
                },
            'wsgi middleware': {'demo': 'notify.demo'},
            }
        if backend == 'sqlite':
            print("creating a Tryton database on SQLite ...", flush=True)
            sections['database'] = {'uri': 'sqlite://', 'path': directory}
            (Path(directory) / f'{DATABASE}.sqlite').touch()
        else:
            print("creating a Tryton database on PostgreSQL ...", flush=True)
            postgresql = stack.enter_context(PostgreSQL())
            postgresql.create_database(DATABASE)
            sections['database'] = {'uri': postgresql.uri}
        create_tryton(sections, DATABASE, password)

        bus = stack.enter_context(BusServer(directory, sections, [DATABASE]))
        print("trytond-bus serves on", bus.url, flush=True)
        sections['bus']['url_host'] = bus.url + '/'
        trytond = stack.enter_context(
            TrytondServer(directory, sections, [DATABASE]))
        print("trytond serves on", trytond.url, flush=True)
        status = subprocess.run([
                sys.executable, EXAMPLES / 'client.py', trytond.url, DATABASE,
                password]).returncode
        if status:
            for server in [bus, trytond]:
                print(server.log, file=sys.stderr)
        elif os.environ.get('KEEP'):
            print(
                f"address {trytond.url}, database {DATABASE}, user admin, "
                f"password {password}; end it with Ctrl-C", flush=True)
            try:
                trytond.process.wait()
            except KeyboardInterrupt:
                pass
    return status


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
