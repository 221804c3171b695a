-- Whole records as blobs (store/record.rs), and beside each only the columns
-- that a query asks for.

CREATE TABLE meta (
    only   INTEGER PRIMARY KEY CHECK (only = 1),
    record BLOB NOT NULL
) STRICT;

CREATE TABLE submission (
    id     INTEGER PRIMARY KEY,
    keyed  INTEGER NOT NULL,
    record BLOB NOT NULL
) STRICT;
CREATE INDEX submission_keyed ON submission (id) WHERE keyed = 1;

CREATE TABLE job (
    id         INTEGER PRIMARY KEY,
    submission INTEGER NOT NULL,
    standing   INTEGER NOT NULL, -- 0 waiting, 1 live, 2 done
    owner      TEXT NOT NULL,
    record     BLOB NOT NULL
) STRICT;
-- Finds what a start needs without reading what is over, and goes without a
-- write while a job moves from waiting to live and back.
CREATE INDEX job_unfinished ON job (id) WHERE standing < 2;

CREATE TABLE spec (
    job    INTEGER PRIMARY KEY,
    record BLOB NOT NULL
) STRICT;

CREATE TABLE attempt (
    job        INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    nonce      INTEGER NOT NULL,
    record     BLOB NOT NULL,
    PRIMARY KEY (job, generation, number, nonce)
) STRICT, WITHOUT ROWID;

CREATE TABLE artifacts (
    job        INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    nonce      INTEGER NOT NULL,
    record     BLOB NOT NULL,
    PRIMARY KEY (job, generation, number, nonce)
) STRICT, WITHOUT ROWID;

CREATE TABLE builder (
    id     INTEGER PRIMARY KEY,
    record BLOB NOT NULL
) STRICT;

CREATE TABLE agent (
    id     INTEGER PRIMARY KEY,
    record BLOB NOT NULL
) STRICT;

CREATE TABLE token (
    id     INTEGER PRIMARY KEY,
    record BLOB NOT NULL
) STRICT;

-- Finished jobs that run again once their dependencies are there.
CREATE TABLE dependent (
    job INTEGER PRIMARY KEY
) STRICT;

-- The newest of each package that was stored or told of; an owner's own where
-- there is one.
CREATE TABLE package (
    name         TEXT NOT NULL,
    architecture TEXT NOT NULL,
    suite        TEXT NOT NULL,
    owner        TEXT NOT NULL,
    record       BLOB NOT NULL,
    PRIMARY KEY (name, architecture, suite, owner)
) STRICT, WITHOUT ROWID;

-- How long jobs of one name take on one architecture.
CREATE TABLE duration (
    name         TEXT NOT NULL,
    architecture TEXT NOT NULL,
    record       BLOB NOT NULL,
    PRIMARY KEY (name, architecture)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger (
    seq    INTEGER PRIMARY KEY,
    record BLOB NOT NULL
) STRICT;
