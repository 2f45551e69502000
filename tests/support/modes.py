"""The two ways in which a trytond gets the bus, each a real server."""
import uuid
from concurrent.futures import ThreadPoolExecutor

from .bus import publish
from .server import TrytondServer

MODES = {
    'class': {'kind': 'threaded'},
    'install': {
        'kind': 'gunicorn', 'wsgi': 'wsgi:application', 'workers': 1},
    }


def serve(mode, directory, uri, database, **options):
    "A server of the database in this mode, with these options of [bus]"
    class_ = 'trytond_fastbus.Bus' if mode == 'class' else None
    sections = {
        'database': {'uri': uri},
        'bus': {
            'class': class_, 'select_timeout': 1,
            'long_polling_timeout': 20, **options},
        }
    return TrytondServer(directory, sections, [database], **MODES[mode])


def listened(client, database):
    "Wait until the server receives published messages"
    channel = f'mark:{uuid.uuid4()}'
    with ThreadPoolExecutor() as executor:
        poll = executor.submit(client.post, '/bus', {'channels': [channel]})
        while not poll.done():
            publish(database, channel, {'type': 'mark'})
            try:
                poll.result(.1)
            except TimeoutError:
                pass
        assert poll.result()['message']
