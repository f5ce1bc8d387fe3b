-- Times are seconds since 1970, UTC. JSON columns hold what is read whole and never searched.

CREATE TABLE store (
    id TEXT NOT NULL        -- in the tag of everything that this store rents
) STRICT;
INSERT INTO store (id) VALUES (lower(hex(randomblob(4))));

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    provider TEXT NOT NULL,
    state TEXT NOT NULL,
    wanted TEXT NOT NULL DEFAULT 'succeeded' CHECK (wanted IN ('succeeded', 'cancelled')),
    recipe TEXT NOT NULL,               -- JSON
    spec TEXT NOT NULL,                 -- JSON, the trainer's spec.json
    options TEXT NOT NULL,              -- JSON, offers in the order in which they are tried
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    due_at REAL NOT NULL,               -- when the engine looks again
    result TEXT,                        -- JSON, once it ended well
    model TEXT,                         -- NAME:VERSION, once registered
    failure TEXT,                       -- JSON {what, where, fix}, once it failed
    cost_usd REAL NOT NULL DEFAULT 0,
    lease_token INTEGER NOT NULL DEFAULT 0,
    lease_holder TEXT,                  -- HOST:PID of the process that carries the job
    lease_until REAL NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, due_at);

CREATE TABLE attempts (
    id TEXT PRIMARY KEY,
    job TEXT NOT NULL REFERENCES jobs (id),
    number INTEGER NOT NULL,
    provider TEXT NOT NULL,
    offer TEXT NOT NULL,                -- JSON
    ref TEXT,                           -- the provider's id; NULL while only the intent is recorded
    state TEXT NOT NULL CHECK (state IN ('intended', 'open', 'stopping', 'closed')),
    cause TEXT,
    log_parsed INTEGER NOT NULL DEFAULT 0,  -- bytes of its log whose progress lines are events already
    created_at REAL NOT NULL,
    closed_at REAL,
    cost_usd REAL NOT NULL DEFAULT 0,
    UNIQUE (job, number)
) STRICT;
CREATE INDEX open_attempts ON attempts (state) WHERE state != 'closed';

CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    job TEXT NOT NULL REFERENCES jobs (id),
    attempt INTEGER,
    at REAL NOT NULL,
    kind TEXT NOT NULL,                 -- moved, noted, or the kind of a progress line
    state TEXT NOT NULL,                -- of the job, after this event
    cause TEXT,
    message TEXT NOT NULL,
    data TEXT,                          -- JSON
    cost_usd REAL NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX events_by_job ON events (job, id);

CREATE TABLE models (
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    job TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    created_at REAL NOT NULL,
    base_model TEXT NOT NULL,
    base_revision TEXT,
    method TEXT NOT NULL,
    recipe TEXT NOT NULL,               -- JSON
    data_fingerprint TEXT NOT NULL,
    metrics TEXT NOT NULL,              -- JSON
    environment TEXT NOT NULL,          -- JSON
    cost_usd REAL NOT NULL,
    files TEXT NOT NULL,                -- JSON [{path, bytes, sha256}]
    PRIMARY KEY (name, version)
) STRICT;
CREATE UNIQUE INDEX one_model_an_attempt ON models (job, attempt);

CREATE TABLE aliases (
    name TEXT NOT NULL,
    alias TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (name, alias),
    FOREIGN KEY (name, version) REFERENCES models (name, version) ON DELETE CASCADE
) STRICT;
