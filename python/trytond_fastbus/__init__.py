"""A drop-in replacement for trytond.bus, the message bus of Tryton.

It is selected by `class = trytond_fastbus.Bus` in the section `[bus]` of
trytond.conf, or by `install()` before trytond.wsgi is imported.
"""
import concurrent.futures.thread  # noqa: F401
import importlib.util
import os
import sys
import threading

from . import _native
from ._native import Bus, notify, statistics

__all__ = ['Bus', 'LongPollingBus', 'install', 'notify', 'statistics']

LongPollingBus = Bus


def _listen(cls, database):
    "Listen to a database as long as clients subscribe to it"
    from .queues import listen
    listen(cls, database)


# Written in Python, because the exit of the interpreter ends the thread of the
# listener, and before 3.14 a Rust function does not survive that.
Bus._listen = classmethod(_listen)
os.register_at_fork(after_in_child=_native.forked)
# Waiting threads that are not daemons would delay the exit until their
# timeout. atexit runs after they are joined, and this private hook runs
# before. The hook that is registered last is called first, so this comes after
# the hook of the executors.
if hasattr(threading, '_register_atexit'):
    threading._register_atexit(_native.close)


def install():
    """Put trytond_fastbus.bus in place of the module trytond.bus.

    A WSGI module calls it first:

        import trytond_fastbus

        trytond_fastbus.install()

        from trytond.application import app

    The module is executed when it is first used, as trytond.bus would be.
    Therefore install() may be called before the configuration is read.

    Raises RuntimeError if trytond.bus is already imported.
    """
    name = __name__ + '.bus'
    installed = sys.modules.get('trytond.bus')
    if installed is not None:
        if installed is sys.modules.get(name):
            return
        raise RuntimeError(
            "trytond.bus is imported already: call trytond_fastbus.install() "
            "before anything imports trytond.wsgi or trytond.bus, or set "
            "'class = trytond_fastbus.Bus' in the section [bus] of the "
            "configuration")
    import trytond
    spec = importlib.util.find_spec(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = sys.modules['trytond.bus'] = module
    trytond.bus = globals()['bus'] = module
    spec.loader.exec_module(module)
