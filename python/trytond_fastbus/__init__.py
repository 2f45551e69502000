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
    "Listen to a database for as long as it is subscribed to"
    from .listener import listen
    listen(cls, database)


# In Python, since the thread of the listener is still there when the
# interpreter ends it, which a function of Rust does not survive before 3.14.
Bus._listen = classmethod(_listen)
os.register_at_fork(after_in_child=_native.forked)
# Waiting threads that are no daemons would hold the exit until their
# time-out: atexit comes after they are joined, and this private hook before.
# The last registered is the first called, so after that of the executors.
if hasattr(threading, '_register_atexit'):
    threading._register_atexit(_native.close)


def install():
    """Put trytond_fastbus.bus in place of the module trytond.bus.

    It is executed when it is first used, as trytond.bus would be, so that
    this may be called before the configuration is read.

    Raises RuntimeError when trytond.bus is imported already.
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
