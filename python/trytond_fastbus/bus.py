"""The replacement of the module trytond.bus, including its route.

`trytond_fastbus.install()` puts it in place of that module. It has the same
names.
"""
import json
import logging
from http import HTTPStatus
from urllib.parse import urljoin

from trytond.protocols.jsonrpc import JSONEncoder
from trytond.protocols.wrappers import Response
from trytond.tools import resolve
from trytond.wsgi import app
from werkzeug import exceptions
from werkzeug.utils import redirect

from . import body, hangup
from ._native import Bus as LongPollingBus
from ._native import _MessageQueue, notify
from .settings import config

__all__ = [
    'Bus', 'LongPollingBus', '_MessageQueue', 'app', 'logger', 'notify',
    'subscribe']

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

if config.get('bus', 'class'):
    Bus = resolve(config.get('bus', 'class'))
else:
    Bus = LongPollingBus

# From 7.8 on a session is valid for one address, the login tells the client
# the address of the bus, and the configuration is read at each call.
_FROM_7_8 = hasattr(app, 'session_valid')
if _FROM_7_8:
    session_valid = app.session_valid
else:
    session_valid = app.auth_required
    _db_timeout = config.getint('database', 'timeout')
    _cache_timeout = config.getint('bus', 'cache_timeout')
    _select_timeout = config.getint('bus', 'select_timeout')
    _long_polling_timeout = config.getint('bus', 'long_polling_timeout')
    _allow_subscribe = config.getboolean('bus', 'allow_subscribe')
    _url_host = config.get('bus', 'url_host')
    _web_cache_timeout = config.getint('web', 'cache_timeout')


@app.route('/<string:database_name>/bus', methods=['POST'])
@session_valid
def subscribe(request, database_name):
    "Answer the poll of a client"
    allow_subscribe, url_host = _access()
    if not allow_subscribe:
        raise exceptions.NotImplemented
    # Stock compares the last slash as well, and then never serves a poll.
    if url_host and url_host.rstrip('/') != request.host_url.rstrip('/'):
        return _elsewhere(request, url_host)
    userid, username = _user(request)
    channels, last_message = body.asked(
        getattr(request, 'parsed_data', None))
    # The user's own channel, which is added below, is the only one that
    # identifies the user.
    channels = {c for c in channels if not c.startswith('user:')}
    channels.add('user:%s' % userid)
    logger.info(
        "get bus messages for %s since %r from %s@%s%s",
        channels, last_message, username, request.remote_addr, request.path)
    with hangup.serving(request.environ):
        response = _response(database_name, channels, last_message)
    return Response(response, content_type='application/json')


def _access():
    if _FROM_7_8:
        return (
            config.getboolean('bus', 'allow_subscribe'),
            config.get('bus', 'url_host'))
    return _allow_subscribe, _url_host


def _elsewhere(request, url_host):
    if _FROM_7_8:
        raise exceptions.Unauthorized
    response = redirect(
        urljoin(url_host, request.path), HTTPStatus.PERMANENT_REDIRECT)
    # Cached for a limited time only, because the administrator may change the
    # URL.
    response.headers['Cache-Control'] = (
        'private, max-age=%s' % _web_cache_timeout)
    return response


def _user(request):
    if hasattr(type(request), 'session'):
        session = request.session
        if session is None:
            raise exceptions.Unauthorized
        userid, username = session.userid, session.username
    else:
        userid = request.authorization.get('userid')
        username = request.authorization.username
    if userid is None:
        raise exceptions.BadRequest("The session has no user")
    return userid, username


def _response(database_name, channels, last_message):
    if _answers_with_ours():
        return Bus._subscribe_json(database_name, channels, last_message)
    response = Bus.subscribe(database_name, channels, last_message)
    return json.dumps(response, cls=JSONEncoder, separators=(',', ':'))


def _answers_with_ours():
    "Whether the configured class makes its responses as our class does"
    def defined_by(name):
        return next((c for c in Bus.__mro__ if name in vars(c)), None)
    return all(
        defined_by(name) is LongPollingBus
        for name in ['subscribe', 'create_response', '_subscribe_json'])
