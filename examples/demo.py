"""See a message go through a real Tryton server: make demo runs this.

It makes a Tryton database on SQLite, starts the command trytond with the bus
and the route of notify.py, and lets client.py, a process that talks only
HTTP, ask for a notification and wait for it. With KEEP=1 the server stays.
"""
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLES = Path(__file__).parent
sys.path.insert(0, str(EXAMPLES.parent / 'tests'))

from support.server import TrytondServer, create_tryton  # noqa: E402


def main():
    # So that the server is ended as well
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    database, password = 'demo', secrets.token_hex(6)
    with tempfile.TemporaryDirectory() as directory:
        sections = {
            'database': {'uri': 'sqlite://', 'path': directory},
            'bus': {
                'allow_subscribe': True,
                'class': 'trytond_fastbus.Bus',
                },
            'wsgi middleware': {'demo': 'notify.demo'},
            }
        print("creating a Tryton database on SQLite ...", flush=True)
        (Path(directory) / f'{database}.sqlite').touch()
        create_tryton(sections, database, password)
        with TrytondServer(directory, sections, [database]) as server:
            print("trytond serves on", server.url, flush=True)
            status = subprocess.run(
                [sys.executable, EXAMPLES / 'client.py', server.url, database,
                    password]).returncode
            if status:
                print(server.log, file=sys.stderr)
            elif os.environ.get('KEEP'):
                print(
                    f"address {server.url}, database {database}, user admin, "
                    f"password {password}; end it with Ctrl-C", flush=True)
                try:
                    server.process.wait()
                except KeyboardInterrupt:
                    pass
    return status


if __name__ == '__main__':
    sys.exit(main())
