"""The journal's table, sequence, function and trigger on PostgreSQL.

Every name is qualified, including operators, so that an object which another
role has put into a schema of the search path is never used. A search path in
the functions themselves (SET search_path) would cost a third of their time.
"""
TABLE = 'trytond_fastbus_journal'

# The version of the objects. Objects without a comment have version 1.
VERSION = 3
COMMENT = 'trytond-fastbus journal, version '

# The first number of our advisory locks on PostgreSQL, and the second numbers:
# for numbering (in the trigger), making the table, and deleting old rows
LOCKS, LOCK_NUMBER, LOCK_MAKE, LOCK_PURGE = 1717658484, 1, 2, 3

# The part of PostgreSQL's notification queue above which the trigger does not
# notify, because a full queue fails the transaction. The listeners make looks
# anyway.
QUEUE_MAX = .75

# The trigger function, which runs in COMMIT. %1$I is the schema, %2$L the
# sequence.
FUNCTION = f'''
CREATE OR REPLACE FUNCTION %1$I.{TABLE}_commit() RETURNS trigger
LANGUAGE plpgsql AS $function$
DECLARE
    number pg_catalog.int8;
    notify_ pg_catalog.text;
    channel_ pg_catalog.text;
    message_ pg_catalog.text;
    payload pg_catalog.text;
    limit_ pg_catalog.text;
    ignored pg_catalog.bool;
BEGIN
    -- Until the transaction is over, so that numbers follow commits
    IF NOT pg_catalog.pg_try_advisory_xact_lock({LOCKS}, {LOCK_NUMBER}) THEN
        limit_ := pg_catalog.current_setting('lock_timeout');
        PERFORM pg_catalog.set_config('lock_timeout', '10s', true);
        PERFORM pg_catalog.pg_advisory_xact_lock({LOCKS}, {LOCK_NUMBER});
        PERFORM pg_catalog.set_config('lock_timeout', limit_, true);
    END IF;
    -- After a restore or a promotion the sequence may be behind the rows.
    UPDATE %1$I.{TABLE}
        SET created = pg_catalog.clock_timestamp(), seq = greatest(
            pg_catalog.nextval(%2$L::pg_catalog.regclass), (
                SELECT seq OPERATOR(pg_catalog.+) 1::pg_catalog.int8
                FROM %1$I.{TABLE} ORDER BY seq DESC LIMIT 1))
        WHERE seq OPERATOR(pg_catalog.=) NEW.seq
        RETURNING seq, notify, channel, message
        INTO number, notify_, channel_, message_;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF number OPERATOR(pg_catalog.<>)
            pg_catalog.currval(%2$L::pg_catalog.regclass) THEN
        PERFORM pg_catalog.setval(%2$L::pg_catalog.regclass, number);
    END IF;
    IF pg_catalog.pg_notification_queue_usage()
            OPERATOR(pg_catalog.>) {QUEUE_MAX}::pg_catalog.float8 THEN
        RETURN NULL;
    END IF;
    payload := pg_catalog.concat('{{"channel":', pg_catalog.to_json(channel_),
        ',"message":', message_, ',"table":', TG_RELID, ',"seq":', number,
        '}}');
    -- Expressions take less time than statements.
    IF pg_catalog.octet_length(payload) OPERATOR(pg_catalog.<) 8000 THEN
        ignored := pg_catalog.pg_notify(notify_, payload) IS NULL;
    ELSE
        ignored := pg_catalog.pg_notify(pg_catalog.concat(notify_, '.part'),
            pg_catalog.concat(number)) IS NULL;
    END IF;
    RETURN NULL;
END
$function$'''

# The number of a row before its transaction commits: a random negative one.
# The sequence is for commits only, so that their numbers have no gaps. It is
# named here so that the default is dropped with it, which `insert` notices.
DEFAULT = '''\
hashtextextended(concat(gen_random_uuid(), %1$L::regclass::oid), 0)
        | (1::bigint << 63)'''

# Makes missing objects, and updates outdated ones. Only a new column or
# default locks the table, for at most 2 seconds.
MAKE = f'''\
DO $make$
DECLARE
    path pg_catalog.text := pg_catalog.current_setting('search_path');
    limit_ pg_catalog.text := pg_catalog.current_setting('lock_timeout');
    schema_ pg_catalog.text := pg_catalog.current_schema();
    table_ pg_catalog.oid := pg_catalog.to_regclass('{TABLE}');
    version pg_catalog.int4;
BEGIN
    -- From here on nothing outside of pg_catalog is found by its bare name.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    PERFORM set_config('lock_timeout', '2s', true);
    IF table_ IS NOT NULL THEN
        SELECT nspname, substring(
                obj_description(c.oid, 'pg_class') FROM '^{COMMENT}([0-9]+)$')
            INTO schema_, version
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
            WHERE c.oid = table_;
        IF version > {VERSION} THEN
            RAISE EXCEPTION 'the table {TABLE} has version %, '
                'which is newer than {VERSION}', version;
        END IF;
    END IF;

    EXECUTE format('CREATE SEQUENCE IF NOT EXISTS %I.{TABLE}_seq', schema_);
    -- The number is negative until the transaction commits.
    EXECUTE format($format$
CREATE TABLE IF NOT EXISTS %1$I.{TABLE} (
    seq bigint PRIMARY KEY,
    created timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    channel text NOT NULL,
    message text NOT NULL,
    notify text NOT NULL DEFAULT 'bus')$format$, schema_);
    table_ := to_regclass(format('%I.{TABLE}', schema_));
    IF NOT EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = table_ AND attname = 'notify'
                AND NOT attisdropped) THEN
        EXECUTE format('ALTER TABLE %I.{TABLE} '
            'ADD COLUMN notify text NOT NULL DEFAULT %L', schema_, 'bus');
    END IF;
    IF version IS DISTINCT FROM {VERSION} OR NOT EXISTS (
            SELECT FROM pg_attrdef JOIN pg_attribute
                ON attrelid = adrelid AND attnum = adnum
            WHERE adrelid = table_ AND attname = 'seq') THEN
        EXECUTE format($format$
ALTER TABLE %2$I.{TABLE} ALTER seq SET DEFAULT {DEFAULT}$format$,
            format('%I.{TABLE}_seq', schema_), schema_);
        EXECUTE format('ALTER SEQUENCE %1$I.{TABLE}_seq '
            'OWNED BY %1$I.{TABLE}.seq', schema_);
    END IF;
    EXECUTE format($format${FUNCTION}$format$,
        schema_, format('%I.{TABLE}_seq', schema_));
    IF NOT EXISTS (
            SELECT FROM pg_trigger
            WHERE tgrelid = table_ AND tgname = '{TABLE}_commit') THEN
        EXECUTE format($format$
CREATE CONSTRAINT TRIGGER {TABLE}_commit AFTER INSERT ON %1$I.{TABLE}
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.seq < 0)
    EXECUTE FUNCTION %1$I.{TABLE}_commit()$format$, schema_);
    ELSIF EXISTS (
            SELECT FROM pg_trigger
            WHERE tgrelid = table_ AND tgname = '{TABLE}_commit'
                AND tgenabled = 'D') THEN
        EXECUTE format('ALTER TABLE %I.{TABLE} '
            'ENABLE TRIGGER {TABLE}_commit', schema_);
    END IF;
    EXECUTE format('COMMENT ON TABLE %I.{TABLE} IS %L', schema_,
        '{COMMENT}{VERSION}');
    PERFORM set_config('lock_timeout', limit_, true);
    PERFORM set_config('search_path', path, true);
END
$make$;
'''

GRANT = f'''
GRANT SELECT, INSERT, UPDATE, DELETE ON {TABLE} TO "{{role}}";
GRANT USAGE, UPDATE ON SEQUENCE {TABLE}_seq TO "{{role}}";
'''

# Its columns: the object identifier; the schema; the version; whether trigger
# and function are as MAKE leaves them; whether the owners are the role itself,
# that of the database or of the schema, or a superuser; whether the role may
# use all of it; whether it may change it; whether it may make it.
LOOK = f'''\
SELECT c.oid, n.nspname,
    coalesce(pg_catalog.substring(
            pg_catalog.obj_description(c.oid, 'pg_class'),
            '^{COMMENT}([0-9]+)$'), '1'),
    s.oid IS NOT NULL AND EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid
            AND a.attname OPERATOR(pg_catalog.=) 'seq' AND a.atthasdef
    ) AND EXISTS (
        SELECT FROM pg_catalog.pg_trigger AS t
        WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid
            AND t.tgname OPERATOR(pg_catalog.=) '{TABLE}_commit'
            AND t.tgenabled OPERATOR(pg_catalog.<>) 'D'
            AND pg_catalog.strpos(p.prosrc, pg_catalog.format(
                    '%I.{TABLE}', coalesce(n.nspname, '')))
                OPERATOR(pg_catalog.>) 0),
    NOT EXISTS (
        SELECT FROM pg_catalog.pg_roles AS r
        WHERE r.oid OPERATOR(pg_catalog.=) ANY (ARRAY[c.relowner, p.proowner])
            AND NOT r.rolsuper
            AND NOT pg_catalog.pg_has_role(r.oid, 'MEMBER')
            AND r.oid OPERATOR(pg_catalog.<>) ALL (
                ARRAY[n.nspowner, d.datdba])),
    pg_catalog.has_table_privilege(c.oid, 'SELECT')
        AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
        AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')
        AND pg_catalog.has_table_privilege(c.oid, 'DELETE')
        AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
        AND coalesce(pg_catalog.has_sequence_privilege(
                s.oid, 'USAGE, UPDATE'), false),
    pg_catalog.pg_has_role(c.relowner, 'USAGE'),
    coalesce(pg_catalog.has_schema_privilege(
            pg_catalog.current_schema(), 'CREATE'), false)
FROM pg_catalog.pg_database AS d
LEFT JOIN pg_catalog.pg_class AS c
    ON c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('{TABLE}')
LEFT JOIN pg_catalog.pg_namespace AS n
    ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
LEFT JOIN pg_catalog.pg_class AS s
    ON s.relnamespace OPERATOR(pg_catalog.=) n.oid
    AND s.relname OPERATOR(pg_catalog.=) '{TABLE}_seq'
LEFT JOIN pg_catalog.pg_proc AS p
    ON p.pronamespace OPERATOR(pg_catalog.=) n.oid
    AND p.proname OPERATOR(pg_catalog.=) '{TABLE}_commit'
WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
'''

# The search path is pg_catalog, and only objects in the schema of the table
# are dropped.
DROP = f'''\
DO $drop$
DECLARE
    path pg_catalog.text := pg_catalog.current_setting('search_path');
    schema_ pg_catalog.text;
    table_ pg_catalog.oid := pg_catalog.to_regclass('{TABLE}');
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT nspname INTO schema_
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
        WHERE c.oid = table_;
    IF FOUND THEN
        EXECUTE format('DROP TABLE %I.{TABLE}', schema_);
        EXECUTE format('DROP SEQUENCE IF EXISTS %I.{TABLE}_seq', schema_);
        EXECUTE format('DROP FUNCTION IF EXISTS %I.{TABLE}_commit()', schema_);
    END IF;
    PERFORM set_config('search_path', path, true);
END
$drop$;
'''
