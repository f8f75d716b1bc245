CREATE TABLE IF NOT EXISTS tollgate_schema (
    version INT NOT NULL
) ENGINE = InnoDB
--
CREATE TABLE IF NOT EXISTS tollgate_consumers (
    id       VARCHAR(128) NOT NULL PRIMARY KEY CHECK (id REGEXP '^[A-Za-z0-9._@-]{1,128}$'),
    plan     VARCHAR(128),
    limits   TEXT,
    labels   MEDIUMTEXT NOT NULL DEFAULT ('{}') CHECK (JSON_VALID(labels)),
    disabled BOOLEAN NOT NULL DEFAULT FALSE,
    version  BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin
--
-- Times are in UTC.
CREATE TABLE IF NOT EXISTS tollgate_tokens (
    consumer       VARCHAR(128) NOT NULL,
    id             VARCHAR(128) NOT NULL CHECK (id REGEXP '^[A-Za-z0-9._@-]{1,128}$'),
    sha256         VARBINARY(32) NOT NULL UNIQUE CHECK (LENGTH(sha256) = 32),
    expires        DATETIME(6),
    created        DATETIME(6) DEFAULT (UTC_TIMESTAMP(6)),
    previous       VARBINARY(32) CHECK (LENGTH(previous) = 32),
    previous_until DATETIME(6),
    PRIMARY KEY (consumer, id),
    FOREIGN KEY (consumer) REFERENCES tollgate_consumers (id) ON UPDATE CASCADE ON DELETE CASCADE
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin
--
CREATE TABLE IF NOT EXISTS tollgate_settings (
    name       VARCHAR(32) NOT NULL PRIMARY KEY CHECK (name IN ('mode', 'default_limit')),
    value      TEXT NOT NULL,
    configured TEXT
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin
--
-- Who changed: a consumer's id, NULL for settings.
CREATE TABLE IF NOT EXISTS tollgate_changes (
    seq      BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    consumer VARCHAR(128),
    at       TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    INDEX (at)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin
--
DROP TRIGGER IF EXISTS tollgate_consumer_added
--
CREATE TRIGGER tollgate_consumer_added AFTER INSERT ON tollgate_consumers FOR EACH ROW
    INSERT INTO tollgate_changes (consumer) VALUES (NEW.id)
--
DROP TRIGGER IF EXISTS tollgate_consumer_changed
--
CREATE TRIGGER tollgate_consumer_changed AFTER UPDATE ON tollgate_consumers FOR EACH ROW
    INSERT INTO tollgate_changes (consumer) SELECT OLD.id UNION SELECT NEW.id
--
DROP TRIGGER IF EXISTS tollgate_consumer_removed
--
CREATE TRIGGER tollgate_consumer_removed AFTER DELETE ON tollgate_consumers FOR EACH ROW
    INSERT INTO tollgate_changes (consumer) VALUES (OLD.id)
--
DROP TRIGGER IF EXISTS tollgate_token_added
--
CREATE TRIGGER tollgate_token_added AFTER INSERT ON tollgate_tokens FOR EACH ROW
    INSERT INTO tollgate_changes (consumer) VALUES (NEW.consumer)
--
DROP TRIGGER IF EXISTS tollgate_token_changed
--
CREATE TRIGGER tollgate_token_changed AFTER UPDATE ON tollgate_tokens FOR EACH ROW
    INSERT INTO tollgate_changes (consumer) SELECT OLD.consumer UNION SELECT NEW.consumer
--
DROP TRIGGER IF EXISTS tollgate_token_removed
--
CREATE TRIGGER tollgate_token_removed AFTER DELETE ON tollgate_tokens FOR EACH ROW
    INSERT INTO tollgate_changes (consumer) VALUES (OLD.consumer)
--
DROP TRIGGER IF EXISTS tollgate_setting_added
--
CREATE TRIGGER tollgate_setting_added AFTER INSERT ON tollgate_settings FOR EACH ROW
    INSERT INTO tollgate_changes (consumer) VALUES (NULL)
--
DROP TRIGGER IF EXISTS tollgate_setting_changed
--
CREATE TRIGGER tollgate_setting_changed AFTER UPDATE ON tollgate_settings FOR EACH ROW
    INSERT INTO tollgate_changes (consumer) VALUES (NULL)
--
DROP TRIGGER IF EXISTS tollgate_setting_removed
--
CREATE TRIGGER tollgate_setting_removed AFTER DELETE ON tollgate_settings FOR EACH ROW
    INSERT INTO tollgate_changes (consumer) VALUES (NULL)
