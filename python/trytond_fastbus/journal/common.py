"""The common part of the journals of both backends."""
from .. import _native
from .schema import TABLE

# The limit of rows of a page, the limit of bytes of the first page, and the
# greatest such limit
ROWS, BYTES_MIN, BYTES_MAX = 2000, 1024 * 1024, 16 * 1024 * 1024

# The greatest number
NUMBER_MAX = _native.NUMBER_MAX

# How many old rows are deleted at a time
OLD_ROWS = 1000


class Unusable(RuntimeError):
    "The database has no usable journal, and none can be made"

    def __init__(self, name, reason, remedy=None):
        super().__init__(
            "the journal of the bus on '%s' cannot be used: %s; %s" % (
                name, reason, remedy or (
                    "let the owner of the database run the statements that "
                    "'trytond-bus --journal-sql' prints")))


def newer(name, version, known):
    "The error for a table of a newer release"
    return Unusable(
        name, "the table %s has version %d, which is newer than version %d, "
        "the newest that this release knows" % (TABLE, version, known),
        "upgrade trytond-fastbus here")
