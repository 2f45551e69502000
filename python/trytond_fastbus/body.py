"""The body of a poll, which trytond's own route does not check.

There a body that is no JSON object, or channels that are no list, are an
error of the server: 500, with a traceback in the log.
"""
import io
import json
import re
import unicodedata

from werkzeug.exceptions import BadRequest

POLL = re.compile('/[^/]+/+bus')

# A longer body is left to trytond, in bytes: no client sends one.
LENGTH_MAX = 1024 * 1024


def asked(data):
    """Return the channels and the last message that a body asks for.

    Raises BadRequest where it is not that of a poll.
    """
    if not isinstance(data, dict):
        raise BadRequest("The body must be a JSON object")
    channels = data.get('channels', [])
    if (not isinstance(channels, list)
            or not all(isinstance(c, str) for c in channels)):
        raise BadRequest("The channels must be a list of strings")
    if any(unicodedata.category(c) == 'Cc' for c in ''.join(channels)):
        raise BadRequest("The name of a channel contains a control character")
    return channels, data.get('last_message')


def check(environ):
    """Raise BadRequest for a poll whose body is none.

    The body is read, and put back.
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
