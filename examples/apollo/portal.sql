-- The tables of an Apollo portal (3.0) that Tollgate reads. The tests of descriptors/consumers/apollo use them too.
CREATE TABLE Consumer (
    Id int unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
    AppId varchar(64) NOT NULL DEFAULT 'default',
    Name varchar(500) NOT NULL DEFAULT 'default',
    OrgId varchar(32) NOT NULL DEFAULT 'default',
    OrgName varchar(64) NOT NULL DEFAULT 'default',
    OwnerName varchar(500) NOT NULL DEFAULT 'default',
    OwnerEmail varchar(500) NOT NULL DEFAULT 'default',
    IsDeleted bit(1) NOT NULL DEFAULT b'0',
    DeletedAt bigint NOT NULL DEFAULT 0,
    DataChange_CreatedBy varchar(64) NOT NULL DEFAULT 'default',
    DataChange_CreatedTime timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
    DataChange_LastModifiedBy varchar(64) DEFAULT '',
    DataChange_LastTime timestamp NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    UNIQUE KEY UK_AppId_DeletedAt (AppId, DeletedAt),
    KEY DataChange_LastTime (DataChange_LastTime)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
CREATE TABLE ConsumerToken (
    Id int unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
    ConsumerId int unsigned DEFAULT NULL,
    Token varchar(128) NOT NULL DEFAULT '',
    RateLimit int NOT NULL DEFAULT 0,
    Expires datetime NOT NULL DEFAULT '2099-01-01 00:00:00',
    IsDeleted bit(1) NOT NULL DEFAULT b'0',
    DeletedAt bigint NOT NULL DEFAULT 0,
    DataChange_CreatedBy varchar(64) NOT NULL DEFAULT 'default',
    DataChange_CreatedTime timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
    DataChange_LastModifiedBy varchar(64) DEFAULT '',
    DataChange_LastTime timestamp NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    UNIQUE KEY UK_Token_DeletedAt (Token, DeletedAt),
    KEY DataChange_LastTime (DataChange_LastTime)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
CREATE TABLE UserToken (
    Id int unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
    UserId varchar(64) NOT NULL DEFAULT '',
    Name varchar(128) NOT NULL DEFAULT '',
    TokenPrefix varchar(32) NOT NULL DEFAULT '',
    TokenHash varchar(128) NOT NULL DEFAULT '',
    Scopes varchar(4096) DEFAULT NULL,
    RateLimit int NOT NULL DEFAULT 0,
    Expires datetime NOT NULL,
    LastUsedTime datetime DEFAULT NULL,
    RevokedAt datetime DEFAULT NULL,
    IsDeleted bit(1) NOT NULL DEFAULT b'0',
    DeletedAt bigint NOT NULL DEFAULT 0,
    DataChange_LastTime timestamp NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    KEY IX_DataChange_LastTime (DataChange_LastTime)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
CREATE TABLE ServerConfig (
    Id int unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY,
    `Key` varchar(64) NOT NULL DEFAULT 'default',
    `Value` varchar(2048) NOT NULL DEFAULT 'default',
    `Comment` varchar(1024) DEFAULT '',
    IsDeleted bit(1) NOT NULL DEFAULT b'0',
    DeletedAt bigint NOT NULL DEFAULT 0,
    DataChange_LastTime timestamp NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    UNIQUE KEY UK_Key_DeletedAt (`Key`, DeletedAt)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
