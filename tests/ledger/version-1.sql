BEGIN TRANSACTION;
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
INSERT INTO "entries" VALUES(1,'done.yaml','c01b12ffbe3029669a831927fa401c9d436150393835e5b1ce24684f15af2aa4',0,0,NULL,NULL,0);
INSERT INTO "entries" VALUES(2,'random.txt','46a011bb4966c515626733033ce590b24345108f89a8da74dfbe9b6bae1cfd45',0,0,NULL,NULL,0);
INSERT INTO "entries" VALUES(3,'random.txt','46a011bb4966c515626733033ce590b24345108f89a8da74dfbe9b6bae1cfd45',1,0,NULL,NULL,0);
INSERT INTO "entries" VALUES(4,'sheet.yaml','978507750648dc0f98af9e0c57201aeab5ec028a800eb7cb233b728c481a03d0',0,0,'{"prompt": "a cat", "axes": [{"label": "steps", "values": ["2", "3"]}], "images": 2}','sheet/0003-sheet.png',1);
INSERT INTO "entries" VALUES(5,'failed.yaml','d8f5de082a4378da1b2939ead78edb4fa745615daead73c2664031fab2e2d862',0,0,NULL,NULL,0);
INSERT INTO "entries" VALUES(6,'photos/red.bmp','d69a80581f763d1e5610e31d5dbab042e9c5100cbb6e90878f668d35fdc97b6c',0,0,NULL,NULL,0);
INSERT INTO "entries" VALUES(7,'queued.yaml','78ecf58f87b59556f7234ef21b9806aa858e9ce175e677fec7f6f98117ec5972',0,0,NULL,NULL,0);
INSERT INTO "entries" VALUES(8,'random.txt','b473312e5ba4e7638e545c2707caeffaf59e7d34e6b98b6f8b31087481d7d766',0,0,NULL,NULL,0);
INSERT INTO "entries" VALUES(9,'cancelled.yaml','54e102f19d43897c8534da6d235327662451f9943f701bca1d42ee7319b9f889',0,0,NULL,NULL,0);
INSERT INTO "entries" VALUES(10,'photos/blue.bmp','eb28bb92dd96342adc0eec18fd4359013f551a670a9080aa0106596895b015c5',0,0,NULL,NULL,0);
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
CREATE TABLE facts (                -- single values, such as the inbox's inode
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
INSERT INTO "facts" VALUES('drawn sheet: sheet.yaml: b4f9dcb68e4296c5df838a34e64931fcc0f09a6066d9bb3e753a140383c6c423','sheet/0003-sheet.png');
INSERT INTO "facts" VALUES('paused','yes');
INSERT INTO "facts" VALUES('inbox last seen','[2155346, []]');
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
INSERT INTO "images" VALUES(1,'done.yaml','4a1b8cd56286348a0e9624d7bc2901e0a0e8e43e6f73de675cff5a069853dddb','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a corgi", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 1, "steps": 24, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 24, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','done',0,1,0,0,'done/0003-1.png',0,0,0,NULL,1);
INSERT INTO "images" VALUES(2,'done.yaml','cd6b1cf967db268d5c224fddad19854bec4eb8a502f43e91b145b76439912d71','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a corgi", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 2, "steps": 24, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 24, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','done',0,1,0,1,'done/0004-2.png',0,0,0,NULL,1);
INSERT INTO "images" VALUES(3,'random.txt','a7b15a4347692d2eec710a4c793e071d43d6bfb9b077747740b3d0bce62560ee','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a star", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 2428532283, "steps": 24, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 24, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','done',0,2,0,0,'random/0003-2428532283.png',0,0,0,NULL,1);
INSERT INTO "images" VALUES(4,'random.txt','489d69ad3f8520b204f711dec44426b5028e00b368525f49aa671dd716df3b98','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a star", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3183424956, "steps": 24, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 24, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','done',0,2,1,0,'random/0004-3183424956.png',0,0,0,NULL,1);
INSERT INTO "images" VALUES(5,'sheet.yaml','d5eb36f127fadecbf94bf7f2b200a82c91225c576cf5c523cec72a6949c73ac2','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a cat", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 5, "steps": 2, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 2, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','done',0,3,0,0,'sheet/0001-5.png',0,0,0,NULL,1);
INSERT INTO "images" VALUES(6,'sheet.yaml','1033528b1d7cdf4de800e222da8a3c4d4a5b22b32e3827385652c71821317856','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a cat", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 5, "steps": 3, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 3, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','done',0,3,0,1,'sheet/0002-5.png',0,0,0,NULL,1);
INSERT INTO "images" VALUES(7,'failed.yaml','650c731745b3cf4081a709b7ec25058d20a42442ed6fafbf8446b86ef01b3045','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a broken vase", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 4, "steps": 24, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 24, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','failed',0,4,0,0,'failed/0002-4.png',0,0,1,'It is broken.',0);
INSERT INTO "images" VALUES(8,'photos/red.bmp','5fb5837eb8c3f07e1de64ead821378689eafc54271cbc6d4e84da5418a06d7df','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "denoising_strength": 0.75, "height": 128, "image": "photos/red.bmp", "image_hash": "b05016fbd37b8ec156150d91b5fd1b00d3071d58ecc7558370cafb29b616677b", "prompt": "a fox", "resize": "crop", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3, "steps": 24, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 24, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', True, False, None)','done',0,7,0,0,'photos/red.png',0,0,0,NULL,1);
INSERT INTO "images" VALUES(9,'queued.yaml','85a6c2a168966a561992cb46700a0cc0f2e6ae1aa7c5f58a8667d00b0fed8bfe','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a house", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 1681450288, "steps": 24, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 24, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','queued',0,8,0,0,NULL,0,0,0,NULL,0);
INSERT INTO "images" VALUES(10,'queued.yaml','c5d3cbec4d189a3d5af3c3023d16e78262644f0e9abcb8463b59c0ab7b28da0f','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a house", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 1681450289, "steps": 24, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 24, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','queued',0,8,0,1,NULL,0,0,0,NULL,0);
INSERT INTO "images" VALUES(11,'queued.yaml','bbdad610dbcbd30a27beb00fec5b38191507c2d442e3facfe60e1a941478a731','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a house", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 1681450290, "steps": 24, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 24, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','queued',0,8,0,2,NULL,0,0,0,NULL,0);
INSERT INTO "images" VALUES(12,'random.txt','ca4defa586762d03db17c90a96f5f78577f2adb05eaace9015a136eb57df19a4','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a moon", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 2907184610, "steps": 24, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 24, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','queued',0,9,2,0,NULL,0,0,0,NULL,0);
INSERT INTO "images" VALUES(13,'cancelled.yaml','f31fb54c5ef9fdd04b97f7b647280c1fba287194bfffc9ce80b4d566af041344','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a tree", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3026251714, "steps": 24, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 24, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','cancelled',0,10,0,0,NULL,0,0,0,NULL,0);
INSERT INTO "images" VALUES(14,'cancelled.yaml','a4368c3c5a72ce469f4fdee6fda2a7a00e15ff22dc9484be943217d31c2bf917','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "height": 128, "prompt": "a tree", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3026251715, "steps": 24, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 24, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', False, False, None)','cancelled',0,10,0,1,NULL,0,0,0,NULL,0);
INSERT INTO "images" VALUES(15,'photos/blue.bmp','1e52d7aa543455647270237c05aeee7068ab4a8ba409e553c51140667551c9a6','{"cfg_scale": 4.0, "checkpoint": "demo", "checkpoint_hash": "ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b", "clip_skip": 1, "denoising_strength": 0.75, "height": 128, "image": "photos/blue.bmp", "image_hash": "03963027ff5b9617d00512310935d4dcf982a4ad1453a6f3e39e5f2c557698a0", "prompt": "a fox", "resize": "crop", "sampler": "DPM++ 2M", "schedule_type": "karras", "seed": 3, "steps": 24, "vae": "baked", "width": 128}','(''demo'', ''baked'', '''', ''DPM++ 2M'', ''karras'', 24, 4.0, 0.0, 0.0, 1.0, 0.0, 128, 128, ''cpu'', 1, 0.75, None, False, None, False, False, (), (), ''ac0466831d2da6d52ed4489f19a0bafd837d573bc579a2acc5bbc7fce2b2d78b'', '''', '''', '''', True, False, None)','queued',0,11,0,0,NULL,0,0,0,NULL,0);
CREATE TABLE numbers (              -- the last picture number used in each folder
    folder TEXT PRIMARY KEY,        -- case-folded and normalised, below the outbox
    last   INTEGER NOT NULL
) STRICT;
INSERT INTO "numbers" VALUES('done',4);
INSERT INTO "numbers" VALUES('random',4);
INSERT INTO "numbers" VALUES('failed',2);
INSERT INTO "numbers" VALUES('sheet',3);
CREATE TABLE recipes (              -- each recipe file whose last save was answered
    path      TEXT PRIMARY KEY,     -- below the inbox
    stamp     TEXT NOT NULL,        -- size, time in ns and inode of the bytes that were answered
    digest    TEXT NOT NULL,        -- sha256 of those bytes
    save      INTEGER NOT NULL REFERENCES saves (id)
) STRICT;
INSERT INTO "recipes" VALUES('done.yaml','33 1795713288547236073 2155379','32ef7cd169b06305d7adbc40e7aaa083dae8bb885a43ce81d2bda0e2d9e918a7',1);
INSERT INTO "recipes" VALUES('sheet.yaml','45 1795713288547335252 2155410','bfb5187b2651c42eed1ae3eb454872ae2ddd5c61f25e8a216d66c8df5896a9fa',3);
INSERT INTO "recipes" VALUES('failed.yaml','30 1795713288547372032 2155428','a7e2f34095fd79adc9fee13133b91d64441ae88411106db1826c93c37c44488b',4);
INSERT INTO "recipes" VALUES('refused.yaml','9 1795713288547405455 2155443','b8ad9962458e4d2e9279b98abbed9b45a0851a9161142a2840c19b4bee4b9d6e',5);
INSERT INTO "recipes" VALUES('photos/_pictures.yaml','22 1795713288547467827 2155475','886f85950b6ed7be8ac7f29bd074d013644e48bb6652ed51fc1f89febde78c1e',6);
INSERT INTO "recipes" VALUES('photos/red.bmp','12342 1795713288552409318 2155523','b05016fbd37b8ec156150d91b5fd1b00d3071d58ecc7558370cafb29b616677b',7);
INSERT INTO "recipes" VALUES('queued.yaml','25 1795713290020546407 2155686','03fc685c8ae9dbc06c8e8fb2a2b45cdd0cfa40cbebaffc26f39adeb297d4d56c',8);
INSERT INTO "recipes" VALUES('random.txt','21 1795713290020603791 2155394','f68ceb425df5e2698502fe30ffab860a32fc7492f577e06d837ec3fbaf935fcb',9);
INSERT INTO "recipes" VALUES('cancelled.yaml','24 1795713290020724474 2155741','f86fa582a089d7cd3ff1ac819cabb6c1d8a4b2ae9c1d34d96aa458c0874ff10b',10);
INSERT INTO "recipes" VALUES('photos/blue.bmp','12342 1795713290020973762 2155777','03963027ff5b9617d00512310935d4dcf982a4ad1453a6f3e39e5f2c557698a0',11);
CREATE TABLE saves (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    recipe    TEXT NOT NULL,
    digest    TEXT NOT NULL,
    saved_at  REAL NOT NULL,
    outcome   TEXT NOT NULL CHECK (outcome IN ('accepted', 'invalid'))
) STRICT;
INSERT INTO "saves" VALUES(1,'done.yaml','32ef7cd169b06305d7adbc40e7aaa083dae8bb885a43ce81d2bda0e2d9e918a7',1.79571328888511061666e+09,'accepted');
INSERT INTO "saves" VALUES(2,'random.txt','22b55b3c662a65837def18d0e6d7176c15f86e0c61fb13a8d92caac72921ff81',1.79571328889476084702e+09,'accepted');
INSERT INTO "saves" VALUES(3,'sheet.yaml','bfb5187b2651c42eed1ae3eb454872ae2ddd5c61f25e8a216d66c8df5896a9fa',1.79571328890395689008e+09,'accepted');
INSERT INTO "saves" VALUES(4,'failed.yaml','a7e2f34095fd79adc9fee13133b91d64441ae88411106db1826c93c37c44488b',1.79571328891691470142e+09,'accepted');
INSERT INTO "saves" VALUES(5,'refused.yaml','b8ad9962458e4d2e9279b98abbed9b45a0851a9161142a2840c19b4bee4b9d6e',1.79571328892436790462e+09,'invalid');
INSERT INTO "saves" VALUES(6,'photos/_pictures.yaml','886f85950b6ed7be8ac7f29bd074d013644e48bb6652ed51fc1f89febde78c1e',1.7957132889324643612e+09,'accepted');
INSERT INTO "saves" VALUES(7,'photos/red.bmp','b05016fbd37b8ec156150d91b5fd1b00d3071d58ecc7558370cafb29b616677b',1.79571328911578321453e+09,'accepted');
INSERT INTO "saves" VALUES(8,'queued.yaml','03fc685c8ae9dbc06c8e8fb2a2b45cdd0cfa40cbebaffc26f39adeb297d4d56c',1.79571329009664964679e+09,'accepted');
INSERT INTO "saves" VALUES(9,'random.txt','f68ceb425df5e2698502fe30ffab860a32fc7492f577e06d837ec3fbaf935fcb',1.795713290105479002e+09,'accepted');
INSERT INTO "saves" VALUES(10,'cancelled.yaml','f86fa582a089d7cd3ff1ac819cabb6c1d8a4b2ae9c1d34d96aa458c0874ff10b',1.79571329010848164562e+09,'accepted');
INSERT INTO "saves" VALUES(11,'photos/blue.bmp','03963027ff5b9617d00512310935d4dcf982a4ad1453a6f3e39e5f2c557698a0',1.79571329034314656255e+09,'accepted');
CREATE TABLE tallies (
    state  TEXT PRIMARY KEY,
    images INTEGER NOT NULL
) STRICT;
INSERT INTO "tallies" VALUES('queued',5);
INSERT INTO "tallies" VALUES('running',0);
INSERT INTO "tallies" VALUES('done',7);
INSERT INTO "tallies" VALUES('failed',1);
INSERT INTO "tallies" VALUES('cancelled',2);
CREATE INDEX images_queue ON images (priority DESC, save, entry_index, image_index)
    WHERE state = 'queued';
CREATE INDEX images_alike ON images (batch_key, priority DESC, save, entry_index, image_index)
    WHERE state = 'queued';
CREATE INDEX images_checkpoint ON images
    (priority, json_extract(request, '$.checkpoint_hash'), save, entry_index, image_index)
    WHERE state = 'queued';
CREATE INDEX images_running ON images (id) WHERE state = 'running';
CREATE INDEX images_failed ON images (recipe) WHERE state = 'failed';
CREATE INDEX images_unlisted ON images (id) WHERE state = 'done' AND listed = 0;
CREATE INDEX entries_of_image ON entry_images (image);
CREATE INDEX sheets_due ON entries (recipe) WHERE sheet IS NOT NULL AND sheet_done = 0;
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
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('saves',11);
COMMIT;
PRAGMA user_version = 1;
