"""The statements of the journal on PostgreSQL.

Every name is qualified, as in `schema`.
"""
import functools

from .common import OLD_ROWS, ROWS

CREATED = 'extract(epoch FROM created)::pg_catalog.float8'
AGE = '''\
extract(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) created)
    ::pg_catalog.float8'''
PAYLOAD = '''\
pg_catalog.concat('{"channel":', pg_catalog.to_json(channel), ',"message":',
    message, '}')'''


@functools.cache
def statements(table):
    "The statements for a table, named with its schema"
    class Statements:
        INSERT = f'''\
INSERT INTO {table} (notify, channel, message) VALUES (%s, %s, %s)'''
        NEWEST = f'''\
SELECT coalesce(pg_catalog.max(seq), 0) FROM {table}
WHERE seq OPERATOR(pg_catalog.>) %(zero)s'''
        # The greatest number of an expired row. The rows above it are read.
        OLD = f'''\
SELECT coalesce((
    SELECT seq FROM {table}
    WHERE seq OPERATOR(pg_catalog.>) 0
        AND {AGE} OPERATOR(pg_catalog.>) %(seconds)s::pg_catalog.float8
    ORDER BY seq DESC LIMIT 1), 0)'''
        # The page ends with the row that fills it. Sizes are read without the
        # messages, which are read only for the rows of the page. Without
        # statistics the planner expects few rows in a range with two ends, and
        # would read and sort all following rows for each page.
        READ = f'''\
SELECT seq, {CREATED}, {AGE},
    CASE WHEN size OPERATOR(pg_catalog.>) %(most)s THEN ''
        WHEN size IS NOT NULL THEN {PAYLOAD} END
FROM (
    SELECT *, pg_catalog.sum(size) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING)
            OPERATOR(pg_catalog.-) size AS bytes
    FROM (
        SELECT *, CASE WHEN seq OPERATOR(pg_catalog.>) %(after)s
                THEN pg_catalog.octet_length(message) OPERATOR(pg_catalog.+)
                    pg_catalog.octet_length(channel) END AS size
        FROM {table}
        WHERE seq OPERATOR(pg_catalog.>=) %(after)s
            AND notify OPERATOR(pg_catalog.=) %(notify)s
        ORDER BY seq LIMIT {ROWS}) AS rows
    ) AS page
WHERE coalesce(bytes, 0) OPERATOR(pg_catalog.<) %(size)s
    AND seq OPERATOR(pg_catalog.<=) %(until)s
ORDER BY seq'''
        FIRST = f'''\
SELECT seq, {AGE}, {PAYLOAD} FROM {table}
WHERE seq OPERATOR(pg_catalog.>) %(after)s
    AND seq OPERATOR(pg_catalog.<=) %(until)s
    AND notify OPERATOR(pg_catalog.=) %(notify)s
    AND channel OPERATOR(pg_catalog.=) ANY (%(channels)s)
    AND pg_catalog.octet_length(message) OPERATOR(pg_catalog.<=) %(most)s
ORDER BY seq LIMIT 1'''
        PURGE = f'''\
WITH deleted AS (
    DELETE FROM {table} WHERE seq IN (
        SELECT seq FROM {table}
        WHERE seq OPERATOR(pg_catalog.>) %(above)s
        ORDER BY seq LIMIT {OLD_ROWS})
    AND {AGE} OPERATOR(pg_catalog.>) %(seconds)s::pg_catalog.float8
    RETURNING seq)
SELECT pg_catalog.count(*), pg_catalog.max(seq) FROM deleted'''
    return Statements
