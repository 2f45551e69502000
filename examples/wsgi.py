"""The WSGI application of trytond with the whole bus module replaced."""
import trytond_fastbus

trytond_fastbus.install()

from trytond.application import app as application  # noqa: E402, F401
