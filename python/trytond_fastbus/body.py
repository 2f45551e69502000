"""The body of a poll, which trytond's own route does not check.

The route answers a body that is not a JSON object, or channels that are not a
list, with 500 and logs a traceback.
"""
import io
import json
import re
import unicodedata

from werkzeug.exceptions import BadRequest

from ._native import CHANNELS_MAX

POLL = re.compile('/[^/]+/+bus')

# The limit in bytes. trytond handles a longer body, which no client sends.
LENGTH_MAX = 1024 * 1024


def asked(data):
    """Return the channels and the last message of a poll's body.

    Raises BadRequest if it is not the body of a poll.
    """
    if not isinstance(data, dict):
        raise BadRequest("The body must be a JSON object")
    channels = data.get('channels', [])
    if (not isinstance(channels, list)
            or not all(isinstance(c, str) for c in channels)):
        raise BadRequest("The channels must be a list of strings")
    if len(channels) > CHANNELS_MAX:
        raise BadRequest(
            "%d channels are more than %d" % (len(channels), CHANNELS_MAX))
    if any(unicodedata.category(c) == 'Cc' for c in ''.join(channels)):
        raise BadRequest("The name of a channel contains a control character")
    return channels, data.get('last_message')


def check(environ):
    """Raise BadRequest for a poll with an invalid body.

    The body is read and put back.
    """
    if (environ['REQUEST_METHOD'] != 'POST'
            or not POLL.fullmatch(environ.get('PATH_INFO', ''))
            or environ.get('HTTP_CONTENT_ENCODING')):
        return
    try:
        length = int(environ.get('CONTENT_LENGTH') or 0)
    except ValueError:
        return
    if not 0 <= length <= LENGTH_MAX or environ.get('HTTP_TRANSFER_ENCODING'):
        return
    body = environ['wsgi.input'].read(length)
    environ['wsgi.input'] = io.BytesIO(body)
    if 'json' not in environ.get('CONTENT_TYPE', ''):
        raise BadRequest("The body must be application/json")
    try:
        data = json.loads(body)
    except ValueError as error:
        raise BadRequest("The body must be a JSON object") from error
    asked(data)
