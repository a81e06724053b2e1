BEGIN TRANSACTION;
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
INSERT INTO "entries" VALUES(1,'done.yaml','c01b12ffbe3029669a831927fa401c9d436150393835e5b1ce24684f15af2aa4',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(2,'random.txt','46a011bb4966c515626733033ce590b24345108f89a8da74dfbe9b6bae1cfd45',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(3,'random.txt','46a011bb4966c515626733033ce590b24345108f89a8da74dfbe9b6bae1cfd45',1,1,0,NULL,0);
INSERT INTO "entries" VALUES(4,'sheet.yaml','978507750648dc0f98af9e0c57201aeab5ec028a800eb7cb233b728c481a03d0',0,0,0,'{"prompt": "a cat", "axes": [{"label": "steps", "values": ["2", "3"]}], "images": 2}',0);
INSERT INTO "entries" VALUES(5,'failed.yaml','d8f5de082a4378da1b2939ead78edb4fa745615daead73c2664031fab2e2d862',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(6,'photos/red.bmp','d69a80581f763d1e5610e31d5dbab042e9c5100cbb6e90878f668d35fdc97b6c',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(7,'queued.yaml','78ecf58f87b59556f7234ef21b9806aa858e9ce175e677fec7f6f98117ec5972',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(8,'random.txt','b473312e5ba4e7638e545c2707caeffaf59e7d34e6b98b6f8b31087481d7d766',0,2,0,NULL,0);
INSERT INTO "entries" VALUES(9,'cancelled.yaml','54e102f19d43897c8534da6d235327662451f9943f701bca1d42ee7319b9f889',0,0,0,NULL,0);
INSERT INTO "entries" VALUES(10,'photos/blue.bmp','eb28bb92dd96342adc0eec18fd4359013f551a670a9080aa0106596895b015c5',0,0,0,NULL,0);
CREATE TABLE entry_images (         -- which entry requests which image; two may request the same
    entry    INTEGER NOT NULL REFERENCES entries (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,      -- among the entry's images, over all draws of its seed
    image    INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    PRIMARY KEY (entry, position)
) STRICT, WITHOUT ROWID;
INSERT INTO "entry_images" VALUES(1,0,1);
INSERT INTO "entry_images" VALUES(1,1,2);
INSERT INTO "entry_images" VALUES(2,0,3);
INSERT INTO "entry_images" VALUES(3,0,4);
INSERT INTO "entry_images" VALUES(4,0,5);
INSERT INTO "entry_images" VALUES(4,1,6);
INSERT INTO "entry_images" VALUES(5,0,7);
INSERT INTO "entry_images" VALUES(6,0,8);
INSERT INTO "entry_images" VALUES(7,0,9);
INSERT INTO "entry_images" VALUES(7,1,10);
INSERT INTO "entry_images" VALUES(7,2,11);
INSERT INTO "entry_images" VALUES(8,0,12);
INSERT INTO "entry_images" VALUES(9,0,13);
INSERT INTO "entry_images" VALUES(9,1,14);
INSERT INTO "entry_images" VALUES(10,0,15);
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
    file      TEXT,                 -- below the outbox; reserved when the image starts
    attempts  INTEGER NOT NULL DEFAULT 0,  -- engine crashes while it rendered this image
    deaths    INTEGER NOT NULL DEFAULT 0,  -- daemon crashes in a row during this image
    alone     INTEGER NOT NULL DEFAULT 0,  -- 1: a batch with it failed, so it is rendered by itself
    passed    INTEGER NOT NULL DEFAULT 0,  -- batches that were taken before it while it was first
    reason    TEXT,                 -- why it failed
    listed    INTEGER NOT NULL DEFAULT 0,  -- 1 once it is in images.jsonl and the gallery
    UNIQUE (recipe, digest)         -- again only if its picture is gone
) STRICT;
INSERT INTO "images" VALUES(1,'done.yaml','4a1b8cd56286348a0e9624d7bc2901e0a0e8e43e6f73de675cff5a069853dddb','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a corgi", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 1, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,3,'32ef7cd169b06305d7adbc40e7aaa083dae8bb885a43ce81d2bda0e2d9e918a7',0,0,'done/0003-1.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(2,'done.yaml','cd6b1cf967db268d5c224fddad19854bec4eb8a502f43e91b145b76439912d71','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a corgi", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 2, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,3,'32ef7cd169b06305d7adbc40e7aaa083dae8bb885a43ce81d2bda0e2d9e918a7',0,1,'done/0004-2.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(3,'random.txt','aec2750c2d0dc47ba0a0328b5aaf46a647dacc3f2eee250ddb59e92f545cd4ad','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a star", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3412458647, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,4,'22b55b3c662a65837def18d0e6d7176c15f86e0c61fb13a8d92caac72921ff81',0,0,'random/0003-3412458647.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(4,'random.txt','44ef8b3c787d11c4d361cf282295d532a0e5f45f0a36f22d3b77c00c5638e0f7','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a star", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 1148776947, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,4,'22b55b3c662a65837def18d0e6d7176c15f86e0c61fb13a8d92caac72921ff81',1,0,'random/0004-1148776947.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(5,'sheet.yaml','d5eb36f127fadecbf94bf7f2b200a82c91225c576cf5c523cec72a6949c73ac2','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a cat", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 5, "steps": 2, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 2), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,5,'bfb5187b2651c42eed1ae3eb454872ae2ddd5c61f25e8a216d66c8df5896a9fa',0,0,'sheet/0001-5.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(6,'sheet.yaml','1033528b1d7cdf4de800e222da8a3c4d4a5b22b32e3827385652c71821317856','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a cat", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 5, "steps": 3, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 3), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,5,'bfb5187b2651c42eed1ae3eb454872ae2ddd5c61f25e8a216d66c8df5896a9fa',0,1,'sheet/0002-5.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(7,'failed.yaml','650c731745b3cf4081a709b7ec25058d20a42442ed6fafbf8446b86ef01b3045','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a broken vase", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 4, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','failed',0,0,6,'a7e2f34095fd79adc9fee13133b91d64441ae88411106db1826c93c37c44488b',0,0,'failed/0002-4.png',0,0,1,0,'It is broken.',0);
INSERT INTO "images" VALUES(8,'photos/red.bmp','5fb5837eb8c3f07e1de64ead821378689eafc54271cbc6d4e84da5418a06d7df','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "denoising_strength": 0.75, "height": 128, "image": "photos/red.bmp", "image_hash": "b05016fbd37b8ec156150d91b5fd1b00d3071d58ecc7558370cafb29b616677b", "prompt": "a fox", "resize": "crop", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', True, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','done',0,0,7,'b05016fbd37b8ec156150d91b5fd1b00d3071d58ecc7558370cafb29b616677b',0,0,'photos/red.png',0,0,0,0,NULL,1);
INSERT INTO "images" VALUES(9,'queued.yaml','acd5dc9ad14d8ff4e8c4818e4d38418955525d8cb8a1f39672b7334f7af809e7','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a house", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 943271934, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','queued',0,0,8,'03fc685c8ae9dbc06c8e8fb2a2b45cdd0cfa40cbebaffc26f39adeb297d4d56c',0,0,NULL,0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(10,'queued.yaml','1eb0956a490249ed533fecf55b827185b662460c0537ca246527052e6127c9cf','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a house", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 943271935, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','queued',0,0,8,'03fc685c8ae9dbc06c8e8fb2a2b45cdd0cfa40cbebaffc26f39adeb297d4d56c',0,1,NULL,0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(11,'queued.yaml','5bdb006fdd62fa7b0e646dfdc7b90cebfcb83078c971408eaec54fc23c4301e0','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a house", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 943271936, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','queued',0,0,8,'03fc685c8ae9dbc06c8e8fb2a2b45cdd0cfa40cbebaffc26f39adeb297d4d56c',0,2,NULL,0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(12,'random.txt','4980d56ed632ed7d00ef8323e290aca04dedd2a8f2eafd4afa0ab212f5e9d297','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a moon", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 4229576584, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','queued',0,0,9,'f68ceb425df5e2698502fe30ffab860a32fc7492f577e06d837ec3fbaf935fcb',2,0,NULL,0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(13,'cancelled.yaml','13af56e9130e77912f2f4e12516deae20299cfe0c06a592a08f9440020dc60b3','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a tree", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 4270669691, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','cancelled',0,0,10,'f86fa582a089d7cd3ff1ac819cabb6c1d8a4b2ae9c1d34d96aa458c0874ff10b',0,0,NULL,0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(14,'cancelled.yaml','2f3356f3882476299ae16615aae8d6cc449825fccdb2f241286241df4c93f303','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a tree", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 4270669692, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','cancelled',0,0,10,'f86fa582a089d7cd3ff1ac819cabb6c1d8a4b2ae9c1d34d96aa458c0874ff10b',0,1,NULL,0,0,0,0,NULL,0);
INSERT INTO "images" VALUES(15,'photos/blue.bmp','1e52d7aa543455647270237c05aeee7068ab4a8ba409e553c51140667551c9a6','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "denoising_strength": 0.75, "height": 128, "image": "photos/blue.bmp", "image_hash": "03963027ff5b9617d00512310935d4dcf982a4ad1453a6f3e39e5f2c557698a0", "prompt": "a fox", "resize": "crop", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3, "steps": 24, "vae": "baked", "width": 128}','((''checkpoint'', ''demo''), (''vae'', ''baked''), (''sampler'', ''DPM++ 2M''), (''schedule_type'', ''karras''), (''steps'', 24), (''cfg_scale'', 4.0), (''width'', 128), (''height'', 128), (''clip_skip'', 1), (''denoising_strength'', 0.75), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', True, False, None)','ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b','queued',0,0,11,'03963027ff5b9617d00512310935d4dcf982a4ad1453a6f3e39e5f2c557698a0',0,0,NULL,0,0,0,0,NULL,0);
CREATE TABLE numbers (              -- the last picture number used in each folder
    folder TEXT PRIMARY KEY,        -- case-folded and normalised, below the outbox
    last   INTEGER NOT NULL
) STRICT;
INSERT INTO "numbers" VALUES('done',4);
INSERT INTO "numbers" VALUES('random',4);
INSERT INTO "numbers" VALUES('failed',2);
INSERT INTO "numbers" VALUES('sheet',3);
CREATE TABLE paused (               -- one row while nothing is to be rendered
    since REAL NOT NULL
) STRICT;
INSERT INTO "paused" VALUES(1.7957130030936467647e+09);
CREATE TABLE recipes (              -- each file of the inbox whose last save was taken
    path          TEXT PRIMARY KEY, -- below the inbox
    size_and_time TEXT NOT NULL,    -- size, time in ns and inode of that version; '0 0 0': read it again
    digest        TEXT NOT NULL,    -- sha256 of its bytes; '' if unreadable, or removed by make
    outcome       TEXT NOT NULL     -- archived: done, and taken out of the inbox
                  CHECK (outcome IN ('accepted', 'refused', 'waiting', 'restored', 'archived')),
    save          INTEGER NOT NULL, -- the id of that save
    folder        TEXT NOT NULL,    -- the inbox it was seen in: only there its absence is a deletion
    template      TEXT NOT NULL DEFAULT '',  -- of a dropped picture: sha256 of its template
    waits_for     TEXT,             -- what it could not use: it is read again when that changes
    problem       TEXT,             -- what is wrong with it, or failed, in a line
    again         TEXT NOT NULL DEFAULT ''    -- what a command wants: that it is read as it is, or
                  CHECK (again IN ('', 'read', 'saved')),  -- taken as if it had been saved again
    todo          INTEGER NOT NULL DEFAULT 0  -- counts changes whose consequences are to be drawn
) STRICT;
INSERT INTO "recipes" VALUES('refused.yaml','9 1795713002510522067 2155250','b8ad9962458e4d2e9279b98abbed9b45a0851a9161142a2840c19b4bee4b9d6e','refused',1,'2155244','',NULL,'inbox/refused.yaml, line 1, column 1: unknown field ''stesp''. Did you mean ''steps''?; line 1, column 1: a prompt is missing. Write ''prompt: …''.','',0);
INSERT INTO "recipes" VALUES('photos/_pictures.yaml','22 1795713002510598304 2155252','886f85950b6ed7be8ac7f29bd074d013644e48bb6652ed51fc1f89febde78c1e','accepted',2,'2155244','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('done.yaml','33 1795713002510226192 2155246','32ef7cd169b06305d7adbc40e7aaa083dae8bb885a43ce81d2bda0e2d9e918a7','accepted',3,'2155244','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('random.txt','21 1795713003123469595 2155247','f68ceb425df5e2698502fe30ffab860a32fc7492f577e06d837ec3fbaf935fcb','accepted',9,'2155244','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('sheet.yaml','45 1795713002510400230 2155248','bfb5187b2651c42eed1ae3eb454872ae2ddd5c61f25e8a216d66c8df5896a9fa','accepted',5,'2155244','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('failed.yaml','30 1795713002510447305 2155249','a7e2f34095fd79adc9fee13133b91d64441ae88411106db1826c93c37c44488b','accepted',6,'2155244','',NULL,'failed.yaml: It is broken.','',0);
INSERT INTO "recipes" VALUES('photos/red.bmp','12342 1795713002511809311 2155253','b05016fbd37b8ec156150d91b5fd1b00d3071d58ecc7558370cafb29b616677b','accepted',7,'2155244','886f85950b6ed7be8ac7f29bd074d013644e48bb6652ed51fc1f89febde78c1e',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('queued.yaml','25 1795713003123424041 2155274','03fc685c8ae9dbc06c8e8fb2a2b45cdd0cfa40cbebaffc26f39adeb297d4d56c','accepted',8,'2155244','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('cancelled.yaml','24 1795713003123536235 2155309','f86fa582a089d7cd3ff1ac819cabb6c1d8a4b2ae9c1d34d96aa458c0874ff10b','accepted',10,'2155244','',NULL,NULL,'',0);
INSERT INTO "recipes" VALUES('photos/blue.bmp','12342 1795713003123724212 2155317','03963027ff5b9617d00512310935d4dcf982a4ad1453a6f3e39e5f2c557698a0','accepted',11,'2155244','886f85950b6ed7be8ac7f29bd074d013644e48bb6652ed51fc1f89febde78c1e',NULL,NULL,'',0);
CREATE TABLE saves (                -- what `make` asks for; a month old ones are deleted
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    recipe    TEXT NOT NULL,
    digest    TEXT NOT NULL,
    saved_at  REAL NOT NULL,
    outcome   TEXT NOT NULL CHECK (outcome IN ('accepted', 'refused', 'waiting'))
) STRICT;
INSERT INTO "saves" VALUES(1,'refused.yaml','b8ad9962458e4d2e9279b98abbed9b45a0851a9161142a2840c19b4bee4b9d6e',1.79571300259487247469e+09,'refused');
INSERT INTO "saves" VALUES(2,'photos/_pictures.yaml','886f85950b6ed7be8ac7f29bd074d013644e48bb6652ed51fc1f89febde78c1e',1.7957130025996546745e+09,'accepted');
INSERT INTO "saves" VALUES(3,'done.yaml','32ef7cd169b06305d7adbc40e7aaa083dae8bb885a43ce81d2bda0e2d9e918a7',1.79571300263658237455e+09,'accepted');
INSERT INTO "saves" VALUES(4,'random.txt','22b55b3c662a65837def18d0e6d7176c15f86e0c61fb13a8d92caac72921ff81',1.79571300264256978034e+09,'accepted');
INSERT INTO "saves" VALUES(5,'sheet.yaml','bfb5187b2651c42eed1ae3eb454872ae2ddd5c61f25e8a216d66c8df5896a9fa',1.79571300264587855339e+09,'accepted');
INSERT INTO "saves" VALUES(6,'failed.yaml','a7e2f34095fd79adc9fee13133b91d64441ae88411106db1826c93c37c44488b',1.79571300264894175534e+09,'accepted');
INSERT INTO "saves" VALUES(7,'photos/red.bmp','b05016fbd37b8ec156150d91b5fd1b00d3071d58ecc7558370cafb29b616677b',1.79571300297366881373e+09,'accepted');
INSERT INTO "saves" VALUES(8,'queued.yaml','03fc685c8ae9dbc06c8e8fb2a2b45cdd0cfa40cbebaffc26f39adeb297d4d56c',1.7957130031829121112e+09,'accepted');
INSERT INTO "saves" VALUES(9,'random.txt','f68ceb425df5e2698502fe30ffab860a32fc7492f577e06d837ec3fbaf935fcb',1.79571300318971467015e+09,'accepted');
INSERT INTO "saves" VALUES(10,'cancelled.yaml','f86fa582a089d7cd3ff1ac819cabb6c1d8a4b2ae9c1d34d96aa458c0874ff10b',1.79571300319335126881e+09,'accepted');
INSERT INTO "saves" VALUES(11,'photos/blue.bmp','03963027ff5b9617d00512310935d4dcf982a4ad1453a6f3e39e5f2c557698a0',1.79571300343347215648e+09,'accepted');
CREATE TABLE sheets (               -- contact sheets, by what they show
    recipe   TEXT NOT NULL,
    shows    TEXT NOT NULL,         -- sha256 of the sheet's JSON and the files on it
    file     TEXT,                  -- below the outbox; reserved before the sheet is written
    done     INTEGER NOT NULL,      -- 1: written, or given up
    PRIMARY KEY (recipe, shows)
) STRICT, WITHOUT ROWID;
INSERT INTO "sheets" VALUES('sheet.yaml','b4f9dcb68e4296c5df838a34e64931fcc0f09a6066d9bb3e753a140383c6c423','sheet/0003-sheet.png',1);
CREATE TABLE tallies (
    state  TEXT PRIMARY KEY,
    images INTEGER NOT NULL
) STRICT;
INSERT INTO "tallies" VALUES('queued',5);
INSERT INTO "tallies" VALUES('running',0);
INSERT INTO "tallies" VALUES('done',7);
INSERT INTO "tallies" VALUES('failed',1);
INSERT INTO "tallies" VALUES('cancelled',2);
CREATE INDEX recipes_digest ON recipes (digest);
CREATE INDEX recipes_todo ON recipes (path) WHERE todo > 0;
CREATE INDEX recipes_waiting ON recipes (waits_for, path) WHERE waits_for IS NOT NULL;
CREATE INDEX recipes_problem ON recipes (save) WHERE problem IS NOT NULL;
CREATE INDEX recipes_dropped ON recipes (path) WHERE template != '';
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
CREATE TRIGGER image_added AFTER INSERT ON images BEGIN
    UPDATE tallies SET images = images + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER image_moved AFTER UPDATE OF state ON images BEGIN
    UPDATE tallies SET images = images - 1 WHERE state = OLD.state;
    UPDATE tallies SET images = images + 1 WHERE state = NEW.state;
    UPDATE recipes SET todo = todo + 1
        WHERE path = NEW.recipe AND NEW.state IN ('done', 'failed', 'cancelled');
END;
CREATE TRIGGER image_removed AFTER DELETE ON images BEGIN
    UPDATE tallies SET images = images - 1 WHERE state = OLD.state;
END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('saves',11);
COMMIT;
PRAGMA user_version = 5;
