"""Use the installed trytond-fastbus as an administrator first would.

It is run by the Python to try, with a directory as its argument, and prints
the tag of the installed wheel and the version of trytond.
"""
import importlib.metadata
import inspect
import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path

CONFIG = '''
[database]
uri = sqlite://
path = {directory}
[bus]
allow_subscribe = True
class = trytond_fastbus.Bus
long_polling_timeout = 60
'''
COMMANDS = Path(sys.executable).parent
DATABASE = 'trial'


def main(directory):
    config = Path(directory, 'trytond.conf')
    config.write_text(CONFIG.format(directory=directory))
    Path(directory, f'{DATABASE}.sqlite').touch()
    os.environ['TRYTOND_CONFIG'] = str(config)
    import trytond_fastbus
    from trytond.bus import Bus, LongPollingBus

    assert Bus is trytond_fastbus.Bus
    for name in ['publish', 'subscribe', 'create_response']:
        ours, stock = (
            inspect.signature(getattr(class_, name))
            for class_ in [Bus, LongPollingBus])
        assert ours == stock, f"{name}{ours}, not {stock}"
    poll(Bus)
    fork(Bus)
    command()
    print(*about())
    # It waits when the interpreter ends, which it must not hold
    threading.Thread(target=Bus.subscribe, args=[DATABASE, ['never']]).start()


def poll(Bus):
    "Have a thread wait for a message that another publishes"
    from trytond_fastbus import statistics
    received = []
    waiting = threading.Thread(
        target=lambda: received.append(Bus.subscribe(DATABASE, ['trial'])))
    waiting.start()
    while not statistics().get(DATABASE, {}).get('waiting'):
        waiting.join(.005)
        assert waiting.is_alive(), received
    publishing = threading.Thread(target=publish, args=[Bus])
    publishing.start()
    publishing.join()
    waiting.join(30)
    response, = received
    assert response['channel'] == 'trial', response
    assert response['message']['text'] == "Grüße", response


def publish(Bus):
    from trytond.transaction import Transaction
    with Transaction().start(DATABASE, 0):
        Bus.publish('trial', {'type': 'trial', 'text': "Grüße"})


def fork(Bus):
    "Do the same in a child of this process"
    child = os.fork()
    if not child:
        status = 1
        try:
            poll(Bus)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert not status, f"the child ended with {status}"


def command():
    "Ask the command trytond-bus for its version, its help and its examples"
    for arguments, expected in [
            (['--version'], importlib.metadata.version('trytond-fastbus')),
            (['serve', '--help'], '--listen'),
            (['examples'], 'nginx/same-origin.conf')]:
        said = subprocess.run(
            [COMMANDS / 'trytond-bus', *arguments], text=True, check=True,
            stdout=subprocess.PIPE).stdout
        assert expected in said, said


def about():
    wheel = importlib.metadata.distribution('trytond-fastbus')
    tag = next(
        line.split()[1] for line in wheel.read_text('WHEEL').splitlines()
        if line.startswith('Tag:'))
    return tag, importlib.metadata.version('trytond')


if __name__ == '__main__':
    main(*sys.argv[1:])
