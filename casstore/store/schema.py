"""The catalog's tables. Who may write which row when is PROTOCOL.md, beside this file.

A portable subset of SQL: besides AUTOINCREMENT (identity columns elsewhere), WITHOUT ROWID (drop it) and BLOB
(bytea) nothing is SQLite's own. Times are seconds of the catalog's clock since 1970, for people and for
expiry only: order is told by `gen`, never by a clock (rule 15). Foreign keys RESTRICT: no row goes while
another needs it.
"""

from __future__ import annotations

VERSION = 1

TABLES = """
-- One row. `value` grows in every transaction that opens a lease or retires something.
CREATE TABLE gen (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    value INTEGER NOT NULL
);

-- schema, epoch, created
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- casstore config
CREATE TABLE config (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE lease (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    opened_gen INTEGER NOT NULL,
    expires DOUBLE PRECISION NOT NULL,
    purpose TEXT NOT NULL
);
CREATE INDEX lease_opened ON lease (opened_gen);

-- A file under an immutable key. `lease`: who wrote it; no foreign key, for pending rows outlive their lease.
-- `deep`: a data pack that gc wrote, packed hard.
-- `dirty` counts the edges of live blobs that it lost since its live bytes were last measured.
CREATE TABLE object (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('blob', 'data', 'metadata', 'index')),
    state TEXT NOT NULL CHECK (state IN ('pending', 'live', 'retired', 'deleting')),
    lease INTEGER NOT NULL,
    retired_gen INTEGER,
    size INTEGER NOT NULL DEFAULT 0,
    chunk_bytes INTEGER NOT NULL DEFAULT 0,
    deep INTEGER NOT NULL DEFAULT 0,
    dirty INTEGER NOT NULL DEFAULT 0,
    damaged INTEGER NOT NULL DEFAULT 0,
    CHECK ((state = 'retired') = (retired_gen IS NOT NULL))
);
CREATE INDEX object_not_live ON object (state, lease) WHERE state <> 'live';
CREATE INDEX object_dirty ON object (id) WHERE dirty > 0;
CREATE INDEX object_light ON object (kind, id) WHERE deep = 0 AND state = 'live';
CREATE INDEX object_index ON object (state) WHERE kind = 'index';

-- `loc`: the loose object, or the metadata pack that holds the record (frame, offset, length) of the blob's
-- bytes ("inline") or recipe ("packed").
CREATE TABLE blob (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('live', 'retired')),
    retired_gen INTEGER,
    loc_state TEXT NOT NULL CHECK (loc_state IN ('loose', 'inline', 'packed')),
    loc INTEGER NOT NULL REFERENCES object (id),
    loc_frame INTEGER NOT NULL,
    loc_offset INTEGER NOT NULL,
    loc_length INTEGER NOT NULL,
    encoding TEXT NOT NULL,
    media_type TEXT NOT NULL,
    diffid BLOB,
    content_size INTEGER,
    files_size INTEGER,
    created DOUBLE PRECISION NOT NULL,
    last_read DOUBLE PRECISION NOT NULL,
    pack_refused TEXT,
    damaged INTEGER NOT NULL DEFAULT 0,
    spot BLOB NOT NULL,
    CHECK ((state = 'retired') = (retired_gen IS NOT NULL))
);
CREATE INDEX blob_retired ON blob (retired_gen) WHERE state = 'retired';
CREATE INDEX blob_loose ON blob (id) WHERE loc_state = 'loose';
CREATE INDEX blob_loc ON blob (loc);
CREATE INDEX blob_diffid ON blob (diffid) WHERE diffid IS NOT NULL;

-- An edge from a blob to every object that it depends on: its loose file, or its metadata pack and its data
-- packs, so that one rule for lifetimes fits all. `used`: intervals of chunk addresses, pairs of u32, empty
-- where not a data pack. A table with rowids: `used` may be long, and the two indexes answer all that the
-- collector asks.
CREATE TABLE place (
    blob INTEGER NOT NULL REFERENCES blob (id),
    object INTEGER NOT NULL REFERENCES object (id),
    used BLOB NOT NULL
);
CREATE UNIQUE INDEX place_blob ON place (blob, object);
CREATE INDEX place_object ON place (object, blob);

-- The packs that an index segment has entries of. No foreign key on the pack: a segment outlives some of its
-- packs.
CREATE TABLE covers (
    segment INTEGER NOT NULL REFERENCES object (id),
    pack INTEGER NOT NULL,
    PRIMARY KEY (segment, pack)
) WITHOUT ROWID;
CREATE INDEX covers_pack ON covers (pack);

CREATE TABLE child (
    parent INTEGER NOT NULL REFERENCES blob (id),
    child INTEGER NOT NULL REFERENCES blob (id),
    PRIMARY KEY (parent, child)
) WITHOUT ROWID;
CREATE INDEX child_child ON child (child, parent);

CREATE TABLE tag (
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    target INTEGER NOT NULL REFERENCES blob (id),
    created DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (repository, tag)
) WITHOUT ROWID;
CREATE INDEX tag_target ON tag (target);

-- What a tag pointed at before: an account for people, nothing is kept alive by it.
CREATE TABLE tag_history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    target BLOB NOT NULL,
    until DOUBLE PRECISION NOT NULL
);
CREATE INDEX tag_history_tag ON tag_history (repository, tag);

-- Kept by hand, under a name. By digest and without foreign key: what is not here may be pinned too.
CREATE TABLE pin (
    digest BLOB NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (digest, name)
) WITHOUT ROWID;

CREATE TABLE named_blob (
    lease INTEGER NOT NULL REFERENCES lease (id),
    blob INTEGER NOT NULL REFERENCES blob (id),
    PRIMARY KEY (lease, blob)
) WITHOUT ROWID;
CREATE INDEX named_blob_blob ON named_blob (blob);

CREATE TABLE named_object (
    lease INTEGER NOT NULL REFERENCES lease (id),
    object INTEGER NOT NULL REFERENCES object (id),
    PRIMARY KEY (lease, object)
) WITHOUT ROWID;
CREATE INDEX named_object_object ON named_object (object);

-- What lists need of an image manifest; derived, disposable.
CREATE TABLE image (
    manifest INTEGER PRIMARY KEY REFERENCES blob (id),
    config BLOB NOT NULL,
    created TEXT NOT NULL,
    size INTEGER NOT NULL,
    os TEXT NOT NULL,
    architecture TEXT NOT NULL,
    variant TEXT NOT NULL,
    labels TEXT NOT NULL,
    parent TEXT NOT NULL
);
CREATE INDEX image_config ON image (config);
CREATE INDEX image_parent ON image (parent) WHERE parent <> '';

INSERT INTO gen (one, value) VALUES (1, 0);
"""

_HEX = "[0-9a-f]"
_KEYS = {
    "blob": [f"blobs/sha256/{_HEX * 2}/{_HEX * 64}.*", f"blobs/sha512/{_HEX * 2}/{_HEX * 128}.*"],
    "data": [f"packs/{_HEX * 2}/{_HEX * 32}"],
    "metadata": [f"packs/{_HEX * 2}/{_HEX * 32}"],
    "index": [f"index/{_HEX * 32}"],
}


def _some_digest(column: str) -> str:
    return f"typeof({column}) = 'blob' AND length({column}) IN (32, 64)"


#: What is true of every row that was ever written and that SQLite does not watch over: (table, condition). A row that
#: breaks one is damaged. `check` looks at them; readers stumble over them one by one.
PLAUSIBLE = [
    (
        "object",
        " OR ".join(f"kind = '{kind}' AND key GLOB '{form}'" for kind, forms in _KEYS.items() for form in forms),
    ),
    ("object", "size >= 0 AND chunk_bytes >= 0 AND damaged IN (0, 1) AND deep IN (0, 1)"),
    ("blob", _some_digest("digest")),
    ("blob", f"diffid IS NULL OR ({_some_digest('diffid')})"),
    ("blob", "size >= 0 AND loc_frame >= 0 AND loc_offset >= 0 AND loc_length >= 0 AND damaged IN (0, 1)"),
    ("blob", "(content_size IS NULL OR content_size >= 0) AND (files_size IS NULL OR files_size >= 0)"),
    ("blob", "typeof(spot) = 'blob' AND typeof(created) IN ('real', 'integer')"),
    ("place", "typeof(used) = 'blob' AND length(used) % 8 = 0"),
    ("tag_history", _some_digest("target")),
    ("pin", _some_digest("digest")),
    ("image", f"{_some_digest('config')} AND json_valid(labels) AND json_type(labels) = 'object'"),
]

#: Columns of text, to be read once by whoever wants to know that they are text.
TEXTS = {
    "meta": "key, value",
    "config": "key, value",
    "object": "key",
    "blob": "encoding, media_type",
    "tag": "repository, tag",
    "tag_history": "repository, tag",
    "pin": "name",
    "image": "created, os, architecture, variant, labels, parent",
}
