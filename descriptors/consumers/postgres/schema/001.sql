CREATE TABLE tollgate_schema (
    version integer NOT NULL
);

CREATE TABLE tollgate_consumers (
    id       text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9._@-]{1,128}$'),
    plan     text,
    limits   text,
    labels   json NOT NULL DEFAULT '{}',
    disabled boolean NOT NULL DEFAULT false,
    version  bigint NOT NULL DEFAULT 0
);

CREATE TABLE tollgate_tokens (
    consumer       text COLLATE "C" NOT NULL REFERENCES tollgate_consumers (id) ON UPDATE CASCADE ON DELETE CASCADE,
    id             text COLLATE "C" NOT NULL CHECK (id ~ '^[A-Za-z0-9._@-]{1,128}$'),
    sha256         bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    expires        timestamptz,
    created        timestamptz DEFAULT now(),
    previous       bytea CHECK (octet_length(previous) = 32),
    previous_until timestamptz,
    PRIMARY KEY (consumer, id)
);

CREATE TABLE tollgate_settings (
    name       text PRIMARY KEY CHECK (name IN ('mode', 'default_limit')),
    value      text NOT NULL,
    configured text
);

-- Who changed: a consumer's id, '' for any consumer, NULL for settings.
CREATE TABLE tollgate_changes (
    seq      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer text COLLATE "C",
    at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX tollgate_changes_at ON tollgate_changes (at);

-- The tables are found beside the one that was changed, whatever the search
-- path of who changed it.
CREATE FUNCTION tollgate_note(tables text, consumer text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO %I.tollgate_changes (consumer) VALUES ($1)', tables) USING consumer;
    PERFORM pg_notify('tollgate_changes', '');
END $$;

CREATE FUNCTION tollgate_consumer_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        EXECUTE format('SELECT %I.tollgate_note($1, $2)', TG_TABLE_SCHEMA) USING TG_TABLE_SCHEMA::text, OLD.id;
    END IF;
    IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND NEW.id <> OLD.id THEN
        EXECUTE format('SELECT %I.tollgate_note($1, $2)', TG_TABLE_SCHEMA) USING TG_TABLE_SCHEMA::text, NEW.id;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION tollgate_token_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        EXECUTE format('SELECT %I.tollgate_note($1, $2)', TG_TABLE_SCHEMA) USING TG_TABLE_SCHEMA::text, OLD.consumer;
    END IF;
    IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND NEW.consumer <> OLD.consumer THEN
        EXECUTE format('SELECT %I.tollgate_note($1, $2)', TG_TABLE_SCHEMA) USING TG_TABLE_SCHEMA::text, NEW.consumer;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION tollgate_any_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT %I.tollgate_note($1, $2)', TG_TABLE_SCHEMA) USING TG_TABLE_SCHEMA::text, ''::text;
    RETURN NULL;
END $$;

CREATE FUNCTION tollgate_setting_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT %I.tollgate_note($1, $2)', TG_TABLE_SCHEMA) USING TG_TABLE_SCHEMA::text, NULL::text;
    RETURN NULL;
END $$;

CREATE TRIGGER tollgate_changed AFTER INSERT OR UPDATE OR DELETE ON tollgate_consumers
    FOR EACH ROW EXECUTE FUNCTION tollgate_consumer_changed();
CREATE TRIGGER tollgate_changed AFTER INSERT OR UPDATE OR DELETE ON tollgate_tokens
    FOR EACH ROW EXECUTE FUNCTION tollgate_token_changed();
CREATE TRIGGER tollgate_emptied AFTER TRUNCATE ON tollgate_consumers
    FOR EACH STATEMENT EXECUTE FUNCTION tollgate_any_changed();
CREATE TRIGGER tollgate_emptied AFTER TRUNCATE ON tollgate_tokens
    FOR EACH STATEMENT EXECUTE FUNCTION tollgate_any_changed();
CREATE TRIGGER tollgate_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON tollgate_settings
    FOR EACH STATEMENT EXECUTE FUNCTION tollgate_setting_changed();
