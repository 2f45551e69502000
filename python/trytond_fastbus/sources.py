"""Where the configuration comes from: its files, and the environment."""
import configparser
import difflib
import os
import re
from typing import NamedTuple

from .options import KNOWN

PREFIX = 'TRYTOND_'

# The sections that trytond has
SECTIONS = {
    'attachment', 'bus', 'cache', 'database', 'email', 'html', 'password',
    'queue', 'report', 'request', 'session', 'ssl', 'web', 'wsgi middleware'}

# The files that a command was given, in place of the environment's
files = []


class Value(NamedTuple):
    "A text of the configuration, and the file or the variable that has it"

    text: str
    origin: str


def paths():
    "The paths of the files, of which a later one prevails"
    found = files or [os.environ.get(PREFIX + 'CONFIG')]
    return [os.path.expanduser(path) for path in found if path]


def values():
    """Return {(section, key): Value} of all that is configured, as trytond
    reads it: a file prevails over the environment.

    Raises OSError or configparser.Error for a file that can't be read.
    """
    found = {}
    for name, text in os.environ.items():
        section, separator, key = name.removeprefix(
            PREFIX).lower().partition('__')
        if name.startswith(PREFIX) and separator:
            found[section, key] = Value(text, name)
    if uri := os.environ.get(PREFIX + 'DATABASE_URI'):
        found.setdefault(
            ('database', 'uri'), Value(uri, PREFIX + 'DATABASE_URI'))
    for path in paths():
        parser = configparser.ConfigParser(interpolation=None)
        with open(path) as file:
            parser.read_file(file, path)
        for section in parser.sections():
            for key, text in parser[section].items():
                if key not in parser.defaults():
                    found[section, key] = Value(text, path)
    return found


def origin(section, key, text):
    "Return the file or the variable that this text comes from"
    try:
        found = values().get((section, key))
    except (OSError, ValueError, configparser.Error):
        found = None
    # It may have been set by a program.
    return found.origin if found and found.text == text else "configuration"


def unknown():
    """Return a line for each key of [bus] that no one reads, and for each
    section and variable that was meant for [bus]"""
    found, lines, strays = values(), [], {}
    for (section, key), value in sorted(found.items()):
        if section == 'bus' and key not in KNOWN:
            like = difflib.get_close_matches(key, KNOWN, 1)
            lines.append(
                "%s: [bus] %s is no option of trytond or trytond-bus, and is "
                "ignored%s" % (
                    value.origin, key,
                    ": is '%s' meant?" % like[0] if like else ""))
        elif section not in SECTIONS and not section.startswith('wsgi '):
            strays.setdefault((section, value.origin), []).append(key)
    for (section, origin), keys in strays.items():
        if _looks_like_bus(section, keys):
            lines.append(
                "%s: the section [%s] is ignored: is [bus] meant?" % (
                    origin, section))
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
