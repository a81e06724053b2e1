-- The ledger, version 10. Times are Unix seconds; paths are relative, with forward slashes.
-- Whatever is still to be done is a column here: a start and an ordinary round read the same rows.

CREATE TABLE recipes (              -- each file of the inbox whose last save was taken
    path          TEXT PRIMARY KEY, -- below the inbox
    size_and_time TEXT NOT NULL,    -- size, mtime, inode, sidecars and ctime of that version; zeros:
                                    -- read it again
    digest        TEXT NOT NULL,    -- sha256 of its bytes; '' if unreadable, or removed by make
    outcome       TEXT NOT NULL     -- archived: done, and taken out of the inbox
                  CHECK (outcome IN ('accepted', 'refused', 'archived')),
    save          INTEGER NOT NULL, -- the id of that save
    inbox_id      TEXT NOT NULL,    -- the inbox it was seen in, as file system and inode: only
                                    -- there its absence is a deletion
    template      TEXT NOT NULL DEFAULT '',  -- of a dropped picture: sha256 of its template
    accepted      TEXT NOT NULL DEFAULT '',  -- if refused: digest, size and time of the last accepted
                                    -- save; '' without one, or if it is to be taken as saved again
    waits         INTEGER NOT NULL DEFAULT 1,  -- 1: refused for something outside its bytes, so it
                                    -- is read again with each scan
    problem       TEXT,             -- what is wrong with it, or failed, in a line
    problem_at    REAL,             -- since when
    told          INTEGER NOT NULL DEFAULT 2,  -- as of images, if it is refused
    reread        TEXT NOT NULL DEFAULT ''    -- what a command wants: that it is read as it is, or
                  CHECK (reread IN ('', 'read', 'saved')),  -- taken as if it had been saved again
    listed        INTEGER NOT NULL DEFAULT 0, -- 1: images.jsonl is told that this save is done
    todo          INTEGER NOT NULL DEFAULT 0  -- counts changes that are to be followed up on
) STRICT;

CREATE INDEX recipes_version ON recipes (digest, size_and_time);
CREATE INDEX recipes_todo ON recipes (path) WHERE todo > 0;
CREATE INDEX recipes_problem ON recipes (problem_at) WHERE problem IS NOT NULL;

CREATE TABLE saves (                -- what `make` asks for; a month old ones are deleted
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    recipe    TEXT NOT NULL,
    digest    TEXT NOT NULL,
    saved_at  REAL NOT NULL,
    outcome   TEXT NOT NULL CHECK (outcome IN ('accepted', 'refused')),
    why       TEXT NOT NULL DEFAULT '', -- what made it a save
    template  TEXT NOT NULL DEFAULT ''  -- of a dropped picture: sha256 of its template
) STRICT;

CREATE INDEX saves_of_recipe ON saves (recipe, digest);
CREATE INDEX saves_by_time ON saves (saved_at);

CREATE TABLE entries (              -- what the last valid save of a recipe requests
    id         INTEGER PRIMARY KEY,
    recipe     TEXT NOT NULL,
    digest     TEXT NOT NULL,       -- of the resolved entry, without priority
    occurrence INTEGER NOT NULL,    -- 0 for the first of equal entries in a file, 1 for the next
    place      INTEGER NOT NULL,    -- in the file, from 0
    priority   INTEGER NOT NULL,
    sheet      TEXT,                -- JSON of what its contact sheet shows, if it requests one
    drawn_from INTEGER NOT NULL DEFAULT 0,  -- position of the first image of its last draw
    seed       INTEGER,             -- that this draw has; NULL: fixed, or not known from version 8
    UNIQUE (recipe, digest, occurrence)
) STRICT;

CREATE TABLE sheets (               -- contact sheets, by what they show
    recipe   TEXT NOT NULL,
    shows    TEXT NOT NULL,         -- sha256 of the sheet's JSON and the files on it, and of their
                                    -- times if they may replace others
    file     TEXT,                  -- below the outbox; reserved before the sheet is written
    done     INTEGER NOT NULL,      -- 1: written, or given up
    PRIMARY KEY (recipe, shows)
) STRICT, WITHOUT ROWID;

CREATE TABLE images (
    id        INTEGER PRIMARY KEY,
    recipe    TEXT NOT NULL,
    digest    TEXT NOT NULL,        -- of the request; with "-" and the id if its picture was
                                    -- replaced, or is kept elsewhere, and stands for none
    request   TEXT NOT NULL,        -- JSON
    batch_key TEXT NOT NULL,        -- images with equal keys can be rendered together
    checkpoint TEXT NOT NULL,       -- hash of the checkpoint it needs
    pixels    INTEGER NOT NULL DEFAULT 0,  -- of the drawn or given picture: photos that are only
                                    -- enlarged differ within a batch; 0: not known
    state     TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    being_written INTEGER NOT NULL DEFAULT 0,  -- 1: running, and its picture is being written
    priority  INTEGER NOT NULL,
    save      INTEGER NOT NULL,     -- the id of the save that requested it
    save_digest TEXT NOT NULL,      -- … and the sha256 of that save's bytes
    entry_index INTEGER NOT NULL,   -- of the entry in its file, from 0
    image_index INTEGER NOT NULL,   -- of the image in its entry, from 0
    entry_digest TEXT NOT NULL,     -- of the entry it was drawn for, as in images.jsonl
    file      TEXT,                 -- below the outbox; reserved when the image starts
    attempts  INTEGER NOT NULL DEFAULT 0,  -- engine crashes while it rendered this image
    deaths    INTEGER NOT NULL DEFAULT 0,  -- daemon crashes in a row during this image
    alone     INTEGER NOT NULL DEFAULT 0,  -- 1: a batch with it failed, so it is rendered by itself
    passed    INTEGER NOT NULL DEFAULT 0,  -- batches that were taken before it while it was first
    reason    TEXT,                 -- why it failed
    ended     REAL,                 -- when it was done or failed; NULL: not known
    seconds   REAL,                 -- that rendering it took
    told      INTEGER NOT NULL DEFAULT 2,  -- in summary.txt: 1 with its folder, 2 with everything;
                                    -- 0: in neither
    listed    INTEGER NOT NULL DEFAULT 0,  -- 1 once it is in images.jsonl and the gallery
    why       TEXT NOT NULL DEFAULT '',  -- why it was queued last (commands/show.py); '' if unknown
    before    INTEGER,              -- the image that its entry requested before in its place
    folder    TEXT NOT NULL         -- of the recipe, at the inbox's first level; '' for none
              GENERATED ALWAYS AS (substr(recipe, 1, max(0, instr(recipe, '/') - 1))) VIRTUAL,
    is_copy   INTEGER NOT NULL      -- 1: it needs no model
              GENERATED ALWAYS AS (batch_key = 'copies') VIRTUAL,
    UNIQUE (recipe, digest)         -- again only if its picture is gone
) STRICT;

CREATE INDEX images_queue ON images (priority DESC, save, entry_index, image_index)
    WHERE state = 'queued';
-- The oldest of each folder: folders take turns.
CREATE INDEX images_turns
    ON images (is_copy, priority DESC, folder, save, entry_index, image_index)
    WHERE state = 'queued';
-- The last two are for the status, which counts what is queued without reading the images.
CREATE INDEX images_alike
    ON images (batch_key, folder, priority DESC, save, entry_index, image_index, recipe, pixels)
    WHERE state = 'queued';
-- Which checkpoints queued images need, for several engines.
CREATE INDEX images_checkpoint ON images (priority, checkpoint, save, entry_index, image_index)
    WHERE state = 'queued';
CREATE INDEX images_running ON images (id) WHERE state = 'running';
CREATE INDEX images_failed ON images (recipe) WHERE state = 'failed';
CREATE INDEX images_untold ON images (recipe) WHERE told < 2;
CREATE INDEX images_unlisted ON images (id) WHERE state = 'done' AND listed = 0;

CREATE TABLE entry_images (         -- which entry requests which image; two may request the same
    entry    INTEGER NOT NULL REFERENCES entries (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,      -- among the entry's images, over all draws of its seed
    image    INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    PRIMARY KEY (entry, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX entries_of_image ON entry_images (image);

CREATE TABLE start_images (         -- the copies that an image needs from its acceptance on; those
                                    -- of a dropped picture and its mask are made for their batch
    image   INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    picture TEXT NOT NULL,          -- sha256 of its bytes, which is the copy's name
    PRIMARY KEY (image, picture)
) STRICT, WITHOUT ROWID;

CREATE INDEX images_of_start_image ON start_images (picture);

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
    UPDATE recipes SET todo = todo + 1 WHERE path = NEW.recipe
        AND (NEW.state IN ('done', 'failed', 'cancelled') OR OLD.state = 'failed');
END;

CREATE TRIGGER image_removed AFTER DELETE ON images BEGIN
    UPDATE tallies SET images = images - 1 WHERE state = OLD.state;
END;

CREATE TABLE failures (             -- what failures.jsonl lacks, in order
    id   INTEGER PRIMARY KEY,
    line TEXT NOT NULL              -- JSON
) STRICT;

CREATE TABLE history (              -- what images.jsonl lacks about recipes, in order
    id   INTEGER PRIMARY KEY,
    line TEXT NOT NULL              -- JSON
) STRICT;

CREATE TABLE restored (             -- saves of images.jsonl that are in no inbox so far: a new
    recipe   TEXT NOT NULL,         -- ledger has them until it has read the whole inbox
    digest   TEXT NOT NULL,         -- sha256 of the save's bytes
    finished INTEGER NOT NULL,      -- 1: all of it was rendered
    PRIMARY KEY (recipe, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX restored_by_digest ON restored (digest);

CREATE TABLE paused (               -- one row while nothing is to be rendered
    since REAL NOT NULL
) STRICT;

CREATE TABLE commands (             -- commands that have no answer yet
    name      TEXT PRIMARY KEY,     -- of the command's file
    since     REAL NOT NULL,
    cancelled INTEGER NOT NULL DEFAULT 0,  -- images so far, or deleted pictures, and how many of
    running   INTEGER NOT NULL DEFAULT 0,  -- these were running
    last_save INTEGER               -- the newest save before it had files read again
) STRICT;

CREATE TABLE batch_sizes (          -- how many images a batch may have, as measured
    alike    TEXT PRIMARY KEY,      -- device, checkpoint and size of the images
    measured TEXT NOT NULL          -- JSON
) STRICT;

CREATE TABLE pass_rates (           -- how long passes take, as measured; the newest row is the last
    device  TEXT NOT NULL,          -- with its precision
    kind    TEXT NOT NULL,          -- a pass, or 'encode', 'decode', 'load'
    model   TEXT NOT NULL,          -- hash of the model
    step    INTEGER NOT NULL,       -- logarithm of the pixels to base 2
    seconds REAL NOT NULL,          -- a unit (recipe/passes.py)
    PRIMARY KEY (device, kind, model, step)
) STRICT;
