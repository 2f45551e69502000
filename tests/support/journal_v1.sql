CREATE SEQUENCE IF NOT EXISTS trytond_fastbus_journal_seq;

-- The number is negative until the transaction commits.
CREATE TABLE IF NOT EXISTS trytond_fastbus_journal (
    seq bigint PRIMARY KEY DEFAULT -nextval('trytond_fastbus_journal_seq'),
    created timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    channel text NOT NULL,
    message text NOT NULL);

ALTER SEQUENCE trytond_fastbus_journal_seq OWNED BY trytond_fastbus_journal.seq;

-- It names the schema and limits the time only when it has to wait: settings
-- of the function would take a third of its time.
DO $make$
BEGIN
    EXECUTE format($format$
CREATE OR REPLACE FUNCTION trytond_fastbus_journal_commit() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
    channel_ text;
    message_ text;
    payload text;
    limit_ text;
    ignored boolean;
BEGIN
    -- Until the transaction is over, so that numbers follow commits
    IF NOT pg_try_advisory_xact_lock(1717658484, 1) THEN
        limit_ := current_setting('lock_timeout');
        PERFORM set_config('lock_timeout', '10s', true);
        PERFORM pg_advisory_xact_lock(1717658484, 1);
        PERFORM set_config('lock_timeout', limit_, true);
    END IF;
    UPDATE %1$I.trytond_fastbus_journal
        SET seq = nextval(%2$L), created = clock_timestamp()
        WHERE seq = NEW.seq
        RETURNING seq, channel, message INTO number, channel_, message_;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    payload := '{"channel":' || to_json(channel_) || ',"message":'
        || message_ || ',"seq":' || number || '}';
    -- Expressions take less time than statements.
    IF octet_length(payload) < 8000 THEN
        ignored := pg_notify('bus', payload) IS NULL;
    ELSE
        ignored := pg_notify('bus.part', number::text) IS NULL;
    END IF;
    RETURN NULL;
END
$$
$format$, current_schema(), format('%I.trytond_fastbus_journal_seq', current_schema()));
END
$make$;

DO $$
BEGIN
    IF NOT EXISTS (
            SELECT FROM pg_trigger
            WHERE tgrelid = 'trytond_fastbus_journal'::regclass
                AND tgname = 'trytond_fastbus_journal_commit') THEN
        CREATE CONSTRAINT TRIGGER trytond_fastbus_journal_commit AFTER INSERT ON trytond_fastbus_journal
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.seq < 0)
            EXECUTE FUNCTION trytond_fastbus_journal_commit();
    END IF;
END
$$;

