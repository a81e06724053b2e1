BEGIN TRANSACTION;
CREATE TABLE attempts (             -- what a disk refused: it is tried again by itself
    step    TEXT NOT NULL,
    file    TEXT NOT NULL,
    tries   INTEGER NOT NULL,
    next_at REAL NOT NULL,
    reason  TEXT NOT NULL,
    PRIMARY KEY (step, file)
) STRICT, WITHOUT ROWID;
CREATE TABLE batch_sizes (          -- how many images a batch may have, as measured
    alike    TEXT PRIMARY KEY,      -- device, checkpoint and size of the images
    measured TEXT NOT NULL          -- JSON
) STRICT;
CREATE TABLE commands (             -- commands that have no answer yet
    name      TEXT PRIMARY KEY,     -- of the command's file
    since     REAL NOT NULL,
    cancelled INTEGER NOT NULL DEFAULT 0,  -- images so far, or deleted pictures, and how many of
    running   INTEGER NOT NULL DEFAULT 0,  -- these were running
    last_save INTEGER               -- the newest save before it had files read again
) STRICT;
INSERT INTO "commands" VALUES('1795836126960278535-4ceb9cbc.json',1.7958361269646861553e+09,2,0,NULL);
CREATE TABLE entries (              -- what the last valid save of a recipe requests
    id         INTEGER PRIMARY KEY,
    recipe     TEXT NOT NULL,
    digest     TEXT NOT NULL,       -- of the resolved entry, without priority
    occurrence INTEGER NOT NULL,    -- 0 for the first of equal entries in a file, 1 for the next
    place      INTEGER NOT NULL,    -- in the file, from 0
    priority   INTEGER NOT NULL,
    sheet      TEXT,                -- JSON of what its contact sheet shows, if it requests one
    drawn_from INTEGER NOT NULL DEFAULT 0,  -- position of the first image of its last draw
    UNIQUE (recipe, digest, occurrence)
) STRICT;
INSERT INTO "entries" VALUES(1,'archived.yaml','d0fba7fd7876145f6d5a91e2381d4932756da2e6a7a2b874696269f684c17471',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(2,'done.yaml','c01b12ffbe3029669a831927fa401c9d436150393835e5b1ce24684f15af2aa4',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(3,'random.txt','46a011bb4966c515626733033ce590b24345108f89a8da74dfbe9b6bae1cfd45',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(4,'random.txt','46a011bb4966c515626733033ce590b24345108f89a8da74dfbe9b6bae1cfd45',1,1,0,NULL,0);
INSERT INTO "entries" VALUES(5,'sheet.yaml','978507750648dc0f98af9e0c57201aeab5ec028a800eb7cb233b728c481a03d0',0,0,0,'{"prompt": "a cat", "axes": [{"label": "steps", "values": ["2", "3"]}], "images": 2}',0);
INSERT INTO "entries" VALUES(6,'failed.yaml','4759c14ac0252e95ece848e3ce269a6aadf99c19253926d5c99f697e92147a10',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(7,'renamed.yaml','a7f6636a4dda7c0bfedf42e2352446a4f4a28e4734acde0b6aa77a9e442a0704',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(8,'photos/red.bmp','d69a80581f763d1e5610e31d5dbab042e9c5100cbb6e90878f668d35fdc97b6c',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(9,'running.yaml','54e102f19d43897c8534da6d235327662451f9943f701bca1d42ee7319b9f889',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(10,'queued.yaml','78ecf58f87b59556f7234ef21b9806aa858e9ce175e677fec7f6f98117ec5972',0,0,-1,NULL,0);
INSERT INTO "entries" VALUES(11,'random.txt','b473312e5ba4e7638e545c2707caeffaf59e7d34e6b98b6f8b31087481d7d766',0,2,0,NULL,0);
INSERT INTO "entries" VALUES(12,'cancelled.yaml','ea510b5c6ba2ce83085f8c4496dc4e7d91980a3314eef71725f1592e29b218b9',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(13,'photos/blue.bmp','eb28bb92dd96342adc0eec18fd4359013f551a670a9080aa0106596895b015c5',0,0,0,NULL,0);
CREATE TABLE entry_images (         -- which entry requests which image; two may request the same
    entry    INTEGER NOT NULL REFERENCES entries (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,      -- among the entry's images, over all draws of its seed
    image    INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    PRIMARY KEY (entry, position)
) STRICT, WITHOUT ROWID;
INSERT INTO "entry_images" VALUES
    (1, 0, 1), (2, 0, 2), (2, 1, 3), (3, 0, 4), (4, 0, 5), (5, 0, 6), (5, 1, 7), (6, 0, 8),
    (7, 0, 9), (8, 0, 10), (9, 0, 11), (9, 1, 12), (10, 0, 13), (10, 1, 14), (10, 2, 15),
    (11, 0, 16), (12, 0, 17), (12, 1, 18), (13, 0, 19);
CREATE TABLE failures (             -- what failures.jsonl lacks, in order
    id   INTEGER PRIMARY KEY,
    line TEXT NOT NULL              -- JSON
) STRICT;
CREATE TABLE images (
    id        INTEGER PRIMARY KEY,
    recipe    TEXT NOT NULL,
    digest    TEXT NOT NULL,        -- of the request
    request   TEXT NOT NULL,        -- JSON
    batch_key TEXT NOT NULL,        -- images with equal keys can be rendered together
    checkpoint TEXT NOT NULL,       -- hash of the checkpoint it needs
    state     TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    drawn     INTEGER NOT NULL DEFAULT 0,  -- 1: running, and its picture is being written
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
    listed    INTEGER NOT NULL DEFAULT 0,  -- 1 once it is in images.jsonl and the gallery
    UNIQUE (recipe, digest)         -- again only if its picture is gone
) STRICT;
INSERT INTO "images" VALUES(1,'archived.yaml','38221976b97c47ed4f05c682acc2c39afac8a330325f94db90df61e8c19a8c48','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "an owl", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 8, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,1,'48f6fbc7d444fe6a0a644e6ccd2f1b8a4f2f9cee3877c299bf134f2e9ed34b64',0,0,'d0fba7fd7876145f6d5a91e2381d4932756da2e6a7a2b874696269f684c17471','archived/0001-8.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(2,'done.yaml','4a1b8cd56286348a0e9624d7bc2901e0a0e8e43e6f73de675cff5a069853dddb','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a corgi", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 1, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,2,'32ef7cd169b06305d7adbc40e7aaa083dae8bb885a43ce81d2bda0e2d9e918a7',0,0,'c01b12ffbe3029669a831927fa401c9d436150393835e5b1ce24684f15af2aa4','done/0003-1.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(3,'done.yaml','cd6b1cf967db268d5c224fddad19854bec4eb8a502f43e91b145b76439912d71','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a corgi", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 2, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,2,'32ef7cd169b06305d7adbc40e7aaa083dae8bb885a43ce81d2bda0e2d9e918a7',0,1,'c01b12ffbe3029669a831927fa401c9d436150393835e5b1ce24684f15af2aa4','done/0004-2.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(4,'random.txt','782fdf62e4fe8b70a8747bc62449fe014c6c11fb61ce4017b0aa171195bb3fdd','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a star", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 1970742153, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,3,'22b55b3c662a65837def18d0e6d7176c15f86e0c61fb13a8d92caac72921ff81',0,0,'46a011bb4966c515626733033ce590b24345108f89a8da74dfbe9b6bae1cfd45','random/0003-1970742153.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(5,'random.txt','3330f66709f4c5f4a15576be487ed978bab4c4bb67ba82294a7ab3ac772b0bb3','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a star", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 1600701373, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,3,'22b55b3c662a65837def18d0e6d7176c15f86e0c61fb13a8d92caac72921ff81',1,0,'46a011bb4966c515626733033ce590b24345108f89a8da74dfbe9b6bae1cfd45-1','random/0004-1600701373.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(6,'sheet.yaml','d5eb36f127fadecbf94bf7f2b200a82c91225c576cf5c523cec72a6949c73ac2','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a cat", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 5, "steps": 2, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 2), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,4,'bfb5187b2651c42eed1ae3eb454872ae2ddd5c61f25e8a216d66c8df5896a9fa',0,0,'978507750648dc0f98af9e0c57201aeab5ec028a800eb7cb233b728c481a03d0','sheet/0001-5.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(7,'sheet.yaml','1033528b1d7cdf4de800e222da8a3c4d4a5b22b32e3827385652c71821317856','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a cat", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 5, "steps": 3, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 3), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,4,'bfb5187b2651c42eed1ae3eb454872ae2ddd5c61f25e8a216d66c8df5896a9fa',0,1,'978507750648dc0f98af9e0c57201aeab5ec028a800eb7cb233b728c481a03d0','sheet/0002-5.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(8,'failed.yaml','98dc056d84bded83d5b75aafd1b941bd47b22d62d6b4e8a0fd4e47117548c746','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "bad", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 4, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','failed',0,0,5,'e09fcffa9928d262e4a77220a43ee17ba8e8719e677aba011b43d20e7822d71b',0,0,'4759c14ac0252e95ece848e3ce269a6aadf99c19253926d5c99f697e92147a10','failed/0002-4.png',0,0,1,0,'Bad.',0);
INSERT INTO "images" VALUES(9,'renamed.yaml','153759507bf696adc5e563ec3a704b74d19e705d95b1a4a8084b2d01c17d9456','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a ship", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 1405074501, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,7,'a7f9df9647830b151fbf09cb8af93f375e1149b51a18338c46e7285cb54c2ef5',0,0,'a7f6636a4dda7c0bfedf42e2352446a4f4a28e4734acde0b6aa77a9e442a0704','before/0002-1405074501.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(10,'photos/red.bmp','5fb5837eb8c3f07e1de64ead821378689eafc54271cbc6d4e84da5418a06d7df','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "denoising_strength": 0.75, "height": 128, "image": "photos/red.bmp", "image_hash": "b05016fbd37b8ec156150d91b5fd1b00d3071d58ecc7558370cafb29b616677b", "prompt": "a fox", "resize": "crop", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', True, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,9,'b05016fbd37b8ec156150d91b5fd1b00d3071d58ecc7558370cafb29b616677b',0,0,'d69a80581f763d1e5610e31d5dbab042e9c5100cbb6e90878f668d35fdc97b6c','photos/red.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(11,'running.yaml','fd0dd025d634d86e0add3efcf4f6f9e6240ef8084c5bced81b1f3ff04ca506ec','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a tree", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3414576359, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','running',0,0,10,'f86fa582a089d7cd3ff1ac819cabb6c1d8a4b2ae9c1d34d96aa458c0874ff10b',0,0,'54e102f19d43897c8534da6d235327662451f9943f701bca1d42ee7319b9f889','running/0001-3414576359.png',0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(12,'running.yaml','e7e45890dd4886000f181ec8b13532800b4dd061fa5e9a243657161d854bf937','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a tree", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3414576360, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','queued',0,0,10,'f86fa582a089d7cd3ff1ac819cabb6c1d8a4b2ae9c1d34d96aa458c0874ff10b',0,1,'54e102f19d43897c8534da6d235327662451f9943f701bca1d42ee7319b9f889',NULL,0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(13,'queued.yaml','f8d23bc773cdef6d13c6b152917f3bfa0a06574ef5281f05e74035b0fe023ce8','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a house", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3457101308, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','queued',0,-1,11,'58dee7308714658704b377e689f2fe6f205d0d8ccc779dc10b6fe7633f70936c',0,0,'78ecf58f87b59556f7234ef21b9806aa858e9ce175e677fec7f6f98117ec5972',NULL,0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(14,'queued.yaml','59befaaf99c6e89a6ccc090ee8b217fcfab26d04c1537ff26080545578e0e82a','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a house", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3457101309, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','queued',0,-1,11,'58dee7308714658704b377e689f2fe6f205d0d8ccc779dc10b6fe7633f70936c',0,1,'78ecf58f87b59556f7234ef21b9806aa858e9ce175e677fec7f6f98117ec5972',NULL,0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(15,'queued.yaml','395f010964c379abe3f281502519f960423652296e353d138e138ab63b4d18ee','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a house", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3457101310, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','queued',0,-1,11,'58dee7308714658704b377e689f2fe6f205d0d8ccc779dc10b6fe7633f70936c',0,2,'78ecf58f87b59556f7234ef21b9806aa858e9ce175e677fec7f6f98117ec5972',NULL,0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(16,'random.txt','c5639596d54f25affa877e8df9fe12a81550f14a75070a78f8988d9509b1178b','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a moon", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 2064398668, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','queued',0,0,12,'f68ceb425df5e2698502fe30ffab860a32fc7492f577e06d837ec3fbaf935fcb',2,0,'b473312e5ba4e7638e545c2707caeffaf59e7d34e6b98b6f8b31087481d7d766',NULL,0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(17,'cancelled.yaml','e637519c8263b7f78e2430d19fff6760549674c6e2087c5a6f0d6add893da4a9','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a road", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 2579840354, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','cancelled',0,0,13,'def0270d9b04513c9a4d054406bbe985d52335724c0ff8a047f3dc80d1467b09',0,0,'ea510b5c6ba2ce83085f8c4496dc4e7d91980a3314eef71725f1592e29b218b9',NULL,0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(18,'cancelled.yaml','89a53dea8a6ba1968a68fdfa312b2a1d8baef609942b226649d35c9bd64d6901','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a road", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 2579840355, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','cancelled',0,0,13,'def0270d9b04513c9a4d054406bbe985d52335724c0ff8a047f3dc80d1467b09',0,1,'ea510b5c6ba2ce83085f8c4496dc4e7d91980a3314eef71725f1592e29b218b9',NULL,0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(19,'photos/blue.bmp','1e52d7aa543455647270237c05aeee7068ab4a8ba409e553c51140667551c9a6','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "denoising_strength": 0.75, "height": 128, "image": "photos/blue.bmp", "image_hash": "03963027ff5b9617d00512310935d4dcf982a4ad1453a6f3e39e5f2c557698a0", "prompt": "a fox", "resize": "crop", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', True, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','queued',0,0,14,'03963027ff5b9617d00512310935d4dcf982a4ad1453a6f3e39e5f2c557698a0',0,0,'eb28bb92dd96342adc0eec18fd4359013f551a670a9080aa0106596895b015c5',NULL,0,0,0,0,NULL,0);
CREATE TABLE numbers (              -- the last picture number used in each folder
    folder TEXT PRIMARY KEY,        -- case-folded and normalised, below the outbox
    last   INTEGER NOT NULL
) STRICT;
INSERT INTO "numbers" VALUES
    ('archived', 1), ('done', 4), ('random', 4), ('failed', 2), ('before', 2), ('sheet', 3),
    ('running', 1);
CREATE TABLE paused (               -- one row while nothing is to be rendered
    since REAL NOT NULL
) STRICT;
INSERT INTO "paused" VALUES(1.79583612699235153193e+09);
CREATE TABLE recipes (              -- each file of the inbox whose last save was taken
    path          TEXT PRIMARY KEY, -- below the inbox
    size_and_time TEXT NOT NULL,    -- size, time in ns and inode of that version; '0 0 0': read it again
    digest        TEXT NOT NULL,    -- sha256 of its bytes; '' if unreadable, or removed by make
    outcome       TEXT NOT NULL     -- archived: done, and taken out of the inbox
                  CHECK (outcome IN ('accepted', 'refused', 'restored', 'archived')),
    save          INTEGER NOT NULL, -- the id of that save
    folder        TEXT NOT NULL,    -- the inbox it was seen in, as file system and inode (before
                                    -- version 7 the inode): only there its absence is a deletion
    template      TEXT NOT NULL DEFAULT '',  -- of a dropped picture: sha256 of its template
    waits_for     TEXT,             -- what it could not use: it is read again when that changes
    problem       TEXT,             -- what is wrong with it, or failed, in a line
    again         TEXT NOT NULL DEFAULT ''    -- what a command wants: that it is read as it is, or
                  CHECK (again IN ('', 'read', 'saved')),  -- taken as if it had been saved again
    todo          INTEGER NOT NULL DEFAULT 0  -- counts changes whose consequences are to be drawn
) STRICT;
INSERT INTO "recipes" VALUES('archived.yaml','23 1795836124920944250 2146353','48f6fbc7d444fe6a0a644e6ccd2f1b8a4f2f9cee3877c299bf134f2e9ed34b64','archived',1,'ca249cc737b4cf6c:2146323','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('done.yaml','33 1795836125292149098 2146444','32ef7cd169b06305d7adbc40e7aaa083dae8bb885a43ce81d2bda0e2d9e918a7','accepted',2,'ca249cc737b4cf6c:2146323','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('random.txt','21 1795836126375217452 2146448','f68ceb425df5e2698502fe30ffab860a32fc7492f577e06d837ec3fbaf935fcb','accepted',12,'ca249cc737b4cf6c:2146323','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('sheet.yaml','45 1795836125292426278 2146451','bfb5187b2651c42eed1ae3eb454872ae2ddd5c61f25e8a216d66c8df5896a9fa','accepted',4,'ca249cc737b4cf6c:2146323','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('failed.yaml','20 1795836125292519303 2146452','e09fcffa9928d262e4a77220a43ee17ba8e8719e677aba011b43d20e7822d71b','accepted',5,'ca249cc737b4cf6c:2146323','',NULL,'failed.yaml: Bad.','',0);
INSERT INTO "recipes" VALUES('refused.yaml','9 1795836125292610443 2146461','b8ad9962458e4d2e9279b98abbed9b45a0851a9161142a2840c19b4bee4b9d6e','refused',6,'ca249cc737b4cf6c:2146323','',NULL,'inbox/refused.yaml, line 1, column 1: unknown field ''stesp''. Did you mean ''steps''?; line 1, column 1: a prompt is missing. Write ''prompt: …''.','',0);
INSERT INTO "recipes" VALUES('renamed.yaml','15 1795836125292748282 2146462','a7f9df9647830b151fbf09cb8af93f375e1149b51a18338c46e7285cb54c2ef5','accepted',7,'ca249cc737b4cf6c:2146323','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('photos/_pictures.yaml','22 1795836125292902441 2146464','886f85950b6ed7be8ac7f29bd074d013644e48bb6652ed51fc1f89febde78c1e','accepted',8,'ca249cc737b4cf6c:2146323','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('photos/red.bmp','12342 1795836125293603677 2146467','b05016fbd37b8ec156150d91b5fd1b00d3071d58ecc7558370cafb29b616677b','accepted',9,'ca249cc737b4cf6c:2146323','886f85950b6ed7be8ac7f29bd074d013644e48bb6652ed51fc1f89febde78c1e',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('running.yaml','24 1795836126288556699 2146472','f86fa582a089d7cd3ff1ac819cabb6c1d8a4b2ae9c1d34d96aa458c0874ff10b','accepted',10,'ca249cc737b4cf6c:2146323','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('queued.yaml','38 1795836126375102887 2146476','58dee7308714658704b377e689f2fe6f205d0d8ccc779dc10b6fe7633f70936c','accepted',11,'ca249cc737b4cf6c:2146323','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('cancelled.yaml','24 1795836126375373916 2146478','def0270d9b04513c9a4d054406bbe985d52335724c0ff8a047f3dc80d1467b09','accepted',13,'ca249cc737b4cf6c:2146323','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('photos/blue.bmp','12342 1795836126375768165 2146479','03963027ff5b9617d00512310935d4dcf982a4ad1453a6f3e39e5f2c557698a0','accepted',14,'ca249cc737b4cf6c:2146323','886f85950b6ed7be8ac7f29bd074d013644e48bb6652ed51fc1f89febde78c1e',NULL,NULL,'',0);
CREATE TABLE saves (                -- what `make` asks for; a month old ones are deleted
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    recipe    TEXT NOT NULL,
    digest    TEXT NOT NULL,
    saved_at  REAL NOT NULL,
    outcome   TEXT NOT NULL CHECK (outcome IN ('accepted', 'refused'))
) STRICT;
INSERT INTO "saves" VALUES(1,'archived.yaml','48f6fbc7d444fe6a0a644e6ccd2f1b8a4f2f9cee3877c299bf134f2e9ed34b64',1.79583612517189836503e+09,'accepted');
INSERT INTO "saves" VALUES(2,'done.yaml','32ef7cd169b06305d7adbc40e7aaa083dae8bb885a43ce81d2bda0e2d9e918a7',1.79583612536623740199e+09,'accepted');
INSERT INTO "saves" VALUES(3,'random.txt','22b55b3c662a65837def18d0e6d7176c15f86e0c61fb13a8d92caac72921ff81',1.79583612537831020352e+09,'accepted');
INSERT INTO "saves" VALUES(4,'sheet.yaml','bfb5187b2651c42eed1ae3eb454872ae2ddd5c61f25e8a216d66c8df5896a9fa',1.7958361253847849369e+09,'accepted');
INSERT INTO "saves" VALUES(5,'failed.yaml','e09fcffa9928d262e4a77220a43ee17ba8e8719e677aba011b43d20e7822d71b',1.79583612538980865475e+09,'accepted');
INSERT INTO "saves" VALUES(6,'refused.yaml','b8ad9962458e4d2e9279b98abbed9b45a0851a9161142a2840c19b4bee4b9d6e',1.79583612539316534988e+09,'refused');
INSERT INTO "saves" VALUES(7,'renamed.yaml','a7f9df9647830b151fbf09cb8af93f375e1149b51a18338c46e7285cb54c2ef5',1.79583612540452742579e+09,'accepted');
INSERT INTO "saves" VALUES(8,'photos/_pictures.yaml','886f85950b6ed7be8ac7f29bd074d013644e48bb6652ed51fc1f89febde78c1e',1.79583612540882945054e+09,'accepted');
INSERT INTO "saves" VALUES(9,'photos/red.bmp','b05016fbd37b8ec156150d91b5fd1b00d3071d58ecc7558370cafb29b616677b',1.7958361257371571064e+09,'accepted');
INSERT INTO "saves" VALUES(10,'running.yaml','f86fa582a089d7cd3ff1ac819cabb6c1d8a4b2ae9c1d34d96aa458c0874ff10b',1.79583612634435081482e+09,'accepted');
INSERT INTO "saves" VALUES(11,'queued.yaml','58dee7308714658704b377e689f2fe6f205d0d8ccc779dc10b6fe7633f70936c',1.79583612643221044542e+09,'accepted');
INSERT INTO "saves" VALUES(12,'random.txt','f68ceb425df5e2698502fe30ffab860a32fc7492f577e06d837ec3fbaf935fcb',1.79583612644580435753e+09,'accepted');
INSERT INTO "saves" VALUES(13,'cancelled.yaml','def0270d9b04513c9a4d054406bbe985d52335724c0ff8a047f3dc80d1467b09',1.795836126453902483e+09,'accepted');
INSERT INTO "saves" VALUES(14,'photos/blue.bmp','03963027ff5b9617d00512310935d4dcf982a4ad1453a6f3e39e5f2c557698a0',1.79583612668396115303e+09,'accepted');
CREATE TABLE sheets (               -- contact sheets, by what they show
    recipe   TEXT NOT NULL,
    shows    TEXT NOT NULL,         -- sha256 of the sheet's JSON and the files on it
    file     TEXT,                  -- below the outbox; reserved before the sheet is written
    done     INTEGER NOT NULL,      -- 1: written, or given up
    PRIMARY KEY (recipe, shows)
) STRICT, WITHOUT ROWID;
INSERT INTO "sheets" VALUES('sheet.yaml','b4f9dcb68e4296c5df838a34e64931fcc0f09a6066d9bb3e753a140383c6c423','sheet/0003-sheet.png',1);
CREATE TABLE start_images (         -- the copies that an image needs from its acceptance on; those
                                    -- of a dropped picture and its mask are made for their batch
    image   INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    picture TEXT NOT NULL,          -- sha256 of its bytes, which is the copy's name
    PRIMARY KEY (image, picture)
) STRICT, WITHOUT ROWID;
CREATE TABLE tallies (
    state  TEXT PRIMARY KEY,
    images INTEGER NOT NULL
) STRICT;
INSERT INTO "tallies" VALUES
    ('queued', 6), ('running', 1), ('done', 9), ('failed', 1), ('cancelled', 2);
CREATE INDEX recipes_version ON recipes (digest, size_and_time);
CREATE INDEX recipes_todo ON recipes (path) WHERE todo > 0;
CREATE INDEX recipes_problem ON recipes (save) WHERE problem IS NOT NULL;
CREATE INDEX saves_of_recipe ON saves (recipe, digest);
CREATE INDEX saves_by_time ON saves (saved_at);
CREATE INDEX images_queue ON images (priority DESC, save, entry_index, image_index)
    WHERE state = 'queued';
CREATE INDEX images_alike ON images (batch_key, priority DESC, save, entry_index, image_index)
    WHERE state = 'queued';
CREATE INDEX images_checkpoint ON images (priority, checkpoint, save, entry_index, image_index)
    WHERE state = 'queued';
CREATE INDEX images_running ON images (id) WHERE state = 'running';
CREATE INDEX images_failed ON images (recipe) WHERE state = 'failed';
CREATE INDEX images_unlisted ON images (id) WHERE state = 'done' AND listed = 0;
CREATE INDEX entries_of_image ON entry_images (image);
CREATE INDEX images_of_start_image ON start_images (picture);
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
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('saves',14);
INSERT INTO "failures" VALUES(1,'{"recipe": "refused.yaml", "reason": "unlisted", "time": "2026-11-28T03:22:05.400+00:00", "save_digest": ""}');
PRAGMA user_version = 8;
COMMIT;
