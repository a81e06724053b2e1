-- The ledger, version 1. Times are Unix seconds; paths are relative, with forward slashes.

CREATE TABLE recipes (              -- each recipe file whose last save was answered
    path      TEXT PRIMARY KEY,     -- below the inbox
    stamp     TEXT NOT NULL,        -- size, time in ns and inode of the bytes that were answered
    digest    TEXT NOT NULL,        -- sha256 of those bytes
    save      INTEGER NOT NULL REFERENCES saves (id)
) STRICT;

CREATE TABLE saves (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    recipe    TEXT NOT NULL,
    digest    TEXT NOT NULL,
    saved_at  REAL NOT NULL,
    outcome   TEXT NOT NULL CHECK (outcome IN ('accepted', 'invalid'))
) STRICT;

CREATE TABLE entries (              -- what the last valid save of a recipe requests
    id         INTEGER PRIMARY KEY,
    recipe     TEXT NOT NULL,
    digest     TEXT NOT NULL,       -- of the resolved entry, without priority
    occurrence INTEGER NOT NULL,    -- 0 for the first of equal entries in a file, 1 for the next
    priority   INTEGER NOT NULL,
    sheet      TEXT,                -- JSON of what its contact sheet shows, if it requests one
    sheet_file TEXT,                -- below the outbox; reserved before the sheet is written
    sheet_done INTEGER NOT NULL DEFAULT 0,  -- 1: written, or given up
    UNIQUE (recipe, digest, occurrence)
) STRICT;

CREATE TABLE images (
    id        INTEGER PRIMARY KEY,
    recipe    TEXT NOT NULL,
    digest    TEXT NOT NULL,        -- of the request
    request   TEXT NOT NULL,        -- JSON
    batch_key TEXT NOT NULL,        -- images with equal keys can be rendered together
    state     TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    priority  INTEGER NOT NULL,
    save      INTEGER NOT NULL REFERENCES saves (id),
    entry_index INTEGER NOT NULL,   -- of the entry in its file, from 0
    image_index INTEGER NOT NULL,   -- of the image in its entry, from 0
    file      TEXT,                 -- below the outbox; reserved when the image starts
    attempts  INTEGER NOT NULL DEFAULT 0,  -- engine crashes while it rendered this image
    deaths    INTEGER NOT NULL DEFAULT 0,  -- daemon crashes in a row during this image
    alone     INTEGER NOT NULL DEFAULT 0,  -- 1: a batch with it failed, so it is rendered by itself
    reason    TEXT,                 -- why it failed
    listed    INTEGER NOT NULL DEFAULT 0,  -- 1 once it is in images.jsonl and the gallery
    UNIQUE (recipe, digest)         -- again only if its picture is gone
) STRICT;

CREATE INDEX images_queue ON images (priority DESC, save, entry_index, image_index)
    WHERE state = 'queued';
CREATE INDEX images_alike ON images (batch_key, priority DESC, save, entry_index, image_index)
    WHERE state = 'queued';
-- Which checkpoints queued images need, for several engines.
CREATE INDEX images_checkpoint ON images
    (priority, json_extract(request, '$.checkpoint_hash'), save, entry_index, image_index)
    WHERE state = 'queued';
CREATE INDEX images_running ON images (id) WHERE state = 'running';
CREATE INDEX images_failed ON images (recipe) WHERE state = 'failed';
CREATE INDEX images_unlisted ON images (id) WHERE state = 'done' AND listed = 0;

CREATE TABLE entry_images (         -- which entry requests which image; two may request the same
    entry    INTEGER NOT NULL REFERENCES entries (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,      -- among the entry's images, over all draws of its seed
    image    INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    PRIMARY KEY (entry, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX entries_of_image ON entry_images (image);
CREATE INDEX sheets_due ON entries (recipe) WHERE sheet IS NOT NULL AND sheet_done = 0;

CREATE TABLE numbers (              -- the last picture number used in each folder
    folder TEXT PRIMARY KEY,        -- case-folded and normalised, below the outbox
    last   INTEGER NOT NULL
) STRICT;

-- How many images are in each state, kept by triggers: a count costs the same at any size.
CREATE TABLE tallies (
    state  TEXT PRIMARY KEY,
    images INTEGER NOT NULL
) STRICT;

INSERT INTO tallies VALUES
    ('queued', 0), ('running', 0), ('done', 0), ('failed', 0), ('cancelled', 0);

CREATE TRIGGER image_added AFTER INSERT ON images BEGIN
    UPDATE tallies SET images = images + 1 WHERE state = NEW.state;
END;

CREATE TRIGGER image_moved AFTER UPDATE OF state ON images BEGIN
    UPDATE tallies SET images = images - 1 WHERE state = OLD.state;
    UPDATE tallies SET images = images + 1 WHERE state = NEW.state;
END;

CREATE TRIGGER image_removed AFTER DELETE ON images BEGIN
    UPDATE tallies SET images = images - 1 WHERE state = OLD.state;
END;

CREATE TABLE facts (                -- single values, such as the inbox's inode
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

INSERT INTO facts VALUES ('restore', '');  -- existing pictures are not restored yet
