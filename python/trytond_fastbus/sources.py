"""The sources of the configuration: its files, and the environment."""
import configparser
import difflib
import getpass
import os
import re
from contextlib import suppress
from typing import NamedTuple

from .options import KNOWN

PREFIX = 'TRYTOND_'

# The sections that trytond has
SECTIONS = {
    'attachment', 'bus', 'cache', 'database', 'email', 'html', 'password',
    'queue', 'report', 'request', 'session', 'ssl', 'web', 'wsgi middleware'}

# The keys of [bus] that no other of these sections has
OWN = set(KNOWN) - {
    'cache_timeout', 'class', 'listen', 'num_proxies', 'select_timeout'}

# The files in the options of a command, which replace those of the environment
files = []


class Value(NamedTuple):
    "A text of the configuration, and its file or variable"

    text: str
    origin: str


def check_environment():
    """Raise ValueError for a variable or a user, and configparser.Error for a
    file of TRYTOND_CONFIG, that trytond can't read when it is imported"""
    for name in ['DECIMAL_PREC', 'DEV', 'LOGGING_LEVEL']:
        text = os.environ.get(PREFIX + name, '')
        if text and not text.isdecimal():
            raise ValueError("%s%s = %s: it must be a whole number%s" % (
                    PREFIX, name, text,
                    ", such as 20 for INFO" if 'LEVEL' in name else ""))
    try:
        getpass.getuser()
    except (KeyError, OSError):
        raise ValueError(
            "the user with the id %d has no name, and trytond needs one: set "
            "LOGNAME in the environment" % os.getuid()) from None
    with suppress(OSError):
        values()


def paths():
    "The paths of the files; a later file prevails"
    found = files or [os.environ.get(PREFIX + 'CONFIG')]
    return [os.path.expanduser(path) for path in found if path]


def variables():
    "Return {(section, key): Value} of the environment, as trytond reads it"
    found = {}
    if uri := os.environ.get(PREFIX + 'DATABASE_URI'):
        found['database', 'uri'] = Value(uri, PREFIX + 'DATABASE_URI')
    for name, text in os.environ.items():
        section, separator, key = name.removeprefix(
            PREFIX).lower().partition('__')
        if name.startswith(PREFIX) and separator:
            found[section, key] = Value(text, name)
    return found


def values():
    """Return {(section, key): Value} of the whole configuration. As for
    trytond, a file prevails over the environment.

    Raises OSError, ValueError or configparser.Error for a file that can't be
    read.
    """
    found = variables()
    for path in paths():
        parser = configparser.ConfigParser(interpolation=None)
        with open(path) as file:
            try:
                parser.read_file(file, path)
            except UnicodeDecodeError as error:
                raise ValueError("%s: it is not a text in %s: %s" % (
                        path, file.encoding, error.reason)) from error
        for section in parser.sections():
            for key, text in parser[section].items():
                if key not in parser.defaults():
                    found[section, key] = Value(text, path)
    return found


def reasons(error):
    "Return the lines of an error's message"
    source = getattr(error, 'source', None)
    if isinstance(error, configparser.DuplicateOptionError):
        return ["%s, line %s: [%s] %s is given twice" % (
                source, error.lineno, error.section, error.option)]
    if isinstance(error, configparser.DuplicateSectionError):
        return ["%s, line %s: the section [%s] is given twice" % (
                source, error.lineno, error.section)]
    if isinstance(error, configparser.MissingSectionHeaderError):
        line = error.line.strip()
        if line.startswith('\ufeff'):
            return ["%s: it begins with a byte order mark: save it without" %
                source]
        return ["%s, line %s: %s stands before the first [section]" % (
                source, error.lineno, line)]
    if isinstance(error, configparser.ParsingError):
        return ["%s, line %s: %s is not KEY = VALUE" % (
                source, number, text.replace('\\n', ''))
            for number, text in error.errors]
    if isinstance(error, OSError) and error.filename and error.strerror:
        return ["%s: %s" % (error.filename, error.strerror)]
    lines = list(filter(None, map(str.strip, str(error).splitlines())))
    if not lines or not isinstance(
            error, OSError | RuntimeError | ValueError) and (
            type(error).__module__.partition('.')[0] != __package__):
        # Some messages, such as that of a KeyError, say too little.
        return [' '.join([type(error).__name__ + ':', *lines])]
    return lines


def origin(section, key, text):
    "Return the file or the variable that contains this text"
    try:
        found = values().get((section, key))
    except (OSError, ValueError, configparser.Error):
        found = None
    # A program may have set the value.
    return found.origin if found and found.text == text else "configuration"


def unknown():
    """Return a line for each unknown key of [bus], and for each section and
    variable that was meant for [bus] and has no effect"""
    found, lines, strays = values(), [], {}
    for (section, key), value in sorted(found.items()):
        if section == 'bus' and key not in KNOWN:
            like = difflib.get_close_matches(key, KNOWN, 1)
            lines.append(
                "%s: [bus] %s is no option of trytond or trytond-bus, and is "
                "ignored%s" % (
                    value.origin, key,
                    ": is '%s' meant?" % like[0] if like else ""))
        elif section in SECTIONS:
            if section != 'bus' and key in OWN:
                lines.append(
                    "%s: [%s] %s is ignored: is [bus] %s meant?" % (
                        value.origin, section, key, key))
        elif not section.startswith('wsgi '):
            strays.setdefault((section, value.origin), []).append(key)
    for (section, origin), keys in strays.items():
        if _looks_like_bus(section, keys):
            lines.append(
                "%s: the section [%s] is ignored: is [bus] meant?" % (
                    origin, section))
    for place, value in sorted(variables().items()):
        if place[0] == 'bus' and found[place].text != value.text:
            lines.append(
                "%s: it has no effect, because %s has [bus] %s as well, and "
                "a file prevails over the environment" % (
                    value.origin, found[place].origin, place[1]))
    for name in sorted(os.environ):
        if name.startswith(PREFIX + 'BUS_') and '__' not in name:
            lines.append(
                "%s: trytond ignores this variable: is %sBUS__%s meant, with "
                "two underscores?" % (
                    name, PREFIX, name.removeprefix(PREFIX + 'BUS_')))
    return lines


def _looks_like_bus(section, keys):
    words = re.findall('[a-z]+', section.lower())
    return (
        'bus' in words or len(set(keys) & set(KNOWN)) > 1
        or bool(difflib.get_close_matches(section.lower(), ['bus'], 1, .75)))
