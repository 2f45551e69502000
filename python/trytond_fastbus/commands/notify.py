"""trytond-bus notify: a notification from a script."""
import logging

from sql import Literal, Table
from trytond import backend
from trytond.transaction import Transaction

from .. import journal
from ..logs import in_a_line
from ..server import bus_class
from . import Failure
from .connection import connect

logger = logging.getLogger('trytond.bus')


def run(options):
    "Send the notification, as trytond.bus.notify does"
    name = options.database
    # This reports at once that a database does not exist.
    connect(name).close()
    if not backend.Database().has_channel() and not journal.of(name):
        raise Failure(
            "on the database backend '%s', a notification reaches trytond "
            "only with the journal: set [bus] journal = True" % backend.name)
    bus = bus_class()
    try:
        with Transaction().start(name, 0):
            if options.client:
                channel = 'client:%s' % options.client
            else:
                channel = 'user:%s' % _user(name, options.user)
            bus.publish(channel, {
                    'type': 'notification',
                    'title': options.title,
                    'body': options.body,
                    'priority': options.priority,
                    })
    except Failure:
        raise
    except Exception as error:
        # For example, the database is not Tryton's.
        logger.debug("the notification cannot be sent", exc_info=True)
        raise Failure("no notification can be sent on '%s': %s" % (
                name, in_a_line(error).partition(' LINE 1: ')[0])) from error
    return 0


def _user(name, text):
    "The id of the user with this login, or with this id"
    user = Table('res_user')
    is_same = user.login == text
    if text.isdecimal() and len(text) < 10:
        is_same |= user.id == int(text)
    cursor = Transaction().connection.cursor()
    cursor.execute(*user.select(
            user.id, user.login,
            where=is_same & (user.active == Literal(True))))
    rows = cursor.fetchall()
    if not rows:
        raise Failure(
            "there is no active user with the login or id '%s' in '%s'"
            % (text, name))
    # A login may look like the id of another user.
    rows.sort(key=lambda row: row[1] != text)
    return rows[0][0]
