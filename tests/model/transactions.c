/* The rows of PROTOCOL.md as functions on the model's state: each is one transaction, or one thing done to files. */
#include "model.h"

/* ---- leases and names ---------------------------------------------------------------------------------------- */

bool has_lease(const State *s, int lease) { return bit(s->c.leases, lease); }

/* Leases that the collector honours. Rule 1: a lease protects until its row is deleted, expired or not. */
static uint8_t honoured(const State *s) {
    return rule[expired_protects] ? s->c.leases : s->c.leases & (uint8_t)~s->c.expired;
}

uint8_t open_leases(const State *s) { return rule[age] ? honoured(s) : 0; }

void lease_open(State *s, int lease) {
    s->c.leases |= 1 << lease;
    if (rule[lease_folder] && rule[folder_first]) s->d.folders |= 1 << lease;
}

void lease_end(State *s, int lease) {
    uint8_t others = (uint8_t)~(1 << lease);
    s->c.leases &= others;
    s->c.expired &= others;
    s->c.named_objects[lease] = 0;
    s->c.named_blobs[lease] = 0;
    for (int o = 0; o < OBJECTS; o++) s->c.older[o] &= others;
    for (int b = 0; b < BLOBS; b++) s->c.blob_older[b] &= others;
}

static bool named_object(const State *s, int o) {
    for (int l = 1; l < SLOTS; l++)
        if (bit(honoured(s), l) && bit(s->c.named_objects[l], o)) return true;
    return false;
}

static bool named_blob(const State *s, int b) {
    for (int l = 1; l < SLOTS; l++)
        if (bit(honoured(s), l) && bit(s->c.named_blobs[l], b)) return true;
    return false;
}

void name_object(State *s, int lease, int o) {
    if (rule[names]) s->c.named_objects[lease] |= 1u << o;
}

void name_blob(State *s, int lease, int b) {
    if (rule[names]) s->c.named_blobs[lease] |= 1 << b;
}

/* A blob is damaged when anything that it needs is suspect. */
bool damaged(const State *s, int b) {
    if (s->c.place[b] && bit(s->c.suspect, s->c.place[b] - 1)) return true;
    if (b < LAYERS)
        for (int slot = 0; slot < SLOTS; slot++)
            if ((s->c.uses[b] >> 2 * slot & 3) && bit(s->c.suspect, OBJECT(DATA, slot))) return true;
    return false;
}

/* "sees X under lease l". What is suspect, and everything under a foreign epoch, is answered "missing". With rule 2
   off, a foreign key must do: any row will. */
bool sees_object(const State *s, int o, int lease) {
    if (!rule[name_in_txn]) return s->c.state[o] != NONE;
    if (rule[suspect_missing] && bit(s->c.suspect, o)) return false;
    if (rule[epoch_name] && s->c.mismatch) return false;
    if (s->c.state[o] == RETIRED)
        return bit(s->c.older[o], lease) || (!rule[age] && bit(s->c.named_objects[lease], o));
    return s->c.state[o] == LIVE;
}

bool sees_blob(const State *s, int b, int lease) {
    if (!rule[name_in_txn]) return s->c.blob[b] != NONE;
    if (rule[suspect_missing] && damaged(s, b)) return false;
    if (rule[epoch_name] && s->c.mismatch) return false;
    if (s->c.blob[b] == RETIRED)
        return bit(s->c.blob_older[b], lease) || (!rule[age] && bit(s->c.named_blobs[lease], b));
    return s->c.blob[b] == LIVE;
}

bool tagged(const State *s, int manifest) { return bit(s->c.tags, manifest - X); }

/* ---- states of rows ------------------------------------------------------------------------------------------ */

void make_live(State *s, int o) {
    s->c.state[o] = LIVE;
    s->c.older[o] = 0;
}

void blob_live(State *s, int b) {
    s->c.blob[b] = LIVE;
    s->c.blob_older[b] = 0;
    if (b < LAYERS && s->c.pin[b] == WISH) s->c.pin[b] = PROMISE;
}

void retire_object(State *s, int o) {
    s->c.state[o] = RETIRED;
    s->c.older[o] = open_leases(s);
}

/* Rule 5: the closure comes back with the blob: its loose object or metadata pack, its data packs, its children. */
void revive(State *s, int b) {
    blob_live(s, b);
    if (!rule[revive_closure]) return;
    int o = s->c.place[b] - 1;
    if (o >= 0 && s->c.state[o] == RETIRED && (KIND(o) != META || rule[meta_revived])) make_live(s, o);
    if (b >= LAYERS) {
        if (s->c.blob[child[b]] == RETIRED) revive(s, child[b]);
        return;
    }
    for (int slot = 0; slot < SLOTS; slot++)
        if ((s->c.uses[b] >> 2 * slot & 3) && s->c.state[OBJECT(DATA, slot)] == RETIRED)
            make_live(s, OBJECT(DATA, slot));
}

/* Does a blob's row refer to the object? */
bool referred(const State *s, int o, bool by_retired_too) {
    for (int b = 0; b < BLOBS; b++) {
        if (s->c.blob[b] != LIVE && !(by_retired_too && s->c.blob[b] == RETIRED)) continue;
        if (s->c.place[b] == o + 1) return true;
        if (KIND(o) == DATA && b < LAYERS && (s->c.uses[b] >> 2 * SLOT(o) & 3)) return true;
    }
    return false;
}

/* ---- writing objects ----------------------------------------------------------------------------------------- */

void put_begin(State *s, int lease, int kind, unsigned holds) {
    int o = OBJECT(kind, lease);
    s->c.state[o] = PENDING;
    s->d.holds[o] = (uint16_t)holds;
}

static bool mine(const State *s, int o, int lease, int file) { return SLOT(o) == lease && s->d.file[o] == file; }

/* Creates, in tmp/<lease>/, the files of all objects that the lease has begun. False: the folder is gone. */
bool put_create(State *s, int lease) {
    if (rule[lease_folder]) {
        if (!rule[folder_first]) s->d.folders |= 1 << lease;
        if (!bit(s->d.folders, lease)) return false;
    }
    /* The process knows what it began, whatever became of the rows. */
    for (int o = 0; o < OBJECTS; o++)
        if (mine(s, o, lease, ABSENT) && bit(s->a.u[lease], 16 + KIND(o))) s->d.file[o] = STAGED;
    return true;
}

bool put_rename(State *s, int lease) {
    for (int o = 0; o < OBJECTS; o++)
        if (SLOT(o) == lease && bit(s->a.u[lease], 16 + KIND(o)) && s->d.file[o] != STAGED) return false;
    for (int o = 0; o < OBJECTS; o++)
        if (mine(s, o, lease, STAGED)) s->d.file[o] = rule[put_sync] ? DURABLE : RENAMED;
    return true;
}

/* ---- index --------------------------------------------------------------------------------------------------- */

/* Two bits a slot. */
unsigned entries(int slot, unsigned chunks) { return chunks << 2 * slot; }

unsigned live_segments(const State *s) {
    unsigned mask = 0;
    for (int slot = 0; slot < SLOTS; slot++)
        if (s->c.state[OBJECT(SEGMENT, slot)] == LIVE) mask |= 1 << slot;
    return mask;
}

/* One transaction: which chunks are in packs that this lease sees? Those packs are named. Returns uses. */
unsigned lookup(State *s, int lease, unsigned chunks, unsigned *missing) {
    unsigned uses = 0;
    *missing = 0;
    for (int c = 0; c < CHUNKS; c++) {
        if (!bit(chunks, c)) continue;
        int hit = -1;
        for (int g = 0; g < SLOTS && hit < 0; g++) {
            int segment = OBJECT(SEGMENT, g);
            if (s->c.state[segment] != LIVE || !on_disk(s, segment) || s->d.rot[segment]) continue;
            for (int p = 0; p < SLOTS && hit < 0; p++)
                if ((s->d.holds[segment] & entries(p, 1u << c)) && sees_object(s, OBJECT(DATA, p), lease)) hit = p;
        }
        if (hit < 0) {
            *missing |= 1u << c;
        } else {
            uses |= entries(hit, 1u << c);
            if (rule[name_in_txn]) name_object(s, lease, OBJECT(DATA, hit));
        }
    }
    return uses;
}

/* ---- collector ----------------------------------------------------------------------------------------------- */

const int move_range[COLLECTOR_MOVES] = {BLOBS, OBJECTS, BLOBS, OBJECTS, SLOTS, 1, 1, OBJECTS, OBJECTS, SLOTS};

static bool rooted(const State *s, int b) {
    return (b >= X && tagged(s, b)) || (b < LAYERS && s->c.pin[b] && rule[pin_holds]) || named_blob(s, b);
}

static bool may_retire_blob(const State *s, int b) {
    if (s->c.blob[b] != LIVE || rooted(s, b)) return false;
    if (b < LAYERS)
        for (int m = X; m <= Y; m++)
            if (child[m] == b && s->c.blob[m] == LIVE && (rule[no_live_parent] || rooted(s, m))) return false;
    return true;
}

static bool retire_blob(State *s, int b) {
    if (!rule[plan_rechecked]) { /* plans in one transaction, obeys in a later one without looking again */
        if (bit(s->c.plan, b)) {
            s->c.plan &= (uint8_t)~(1 << b);
            if (s->c.blob[b] != LIVE) return true;
        } else {
            if (!may_retire_blob(s, b)) return false;
            s->c.plan |= 1 << b;
            return true;
        }
    } else if (!may_retire_blob(s, b)) {
        return false;
    }
    s->c.blob[b] = RETIRED;
    s->c.blob_older[b] = open_leases(s);
    int o = s->c.place[b] - 1;
    if (o >= 0 && KIND(o) == LOOSE && s->c.state[o] == LIVE) retire_object(s, o);
    return true;
}

static bool gone(const State *s, int o) { return s->c.state[o] == NONE || s->c.state[o] == DELETING; }

static bool may_retire_object(const State *s, int o) {
    if (s->c.state[o] != LIVE || named_object(s, o)) return false;
    if (KIND(o) == LOOSE && !rule[retire_loose]) return false; /* only together with its blob */
    if (KIND(o) != SEGMENT) return !referred(s, o, false);
    if (rule[suspect_segment_stays] && bit(s->c.suspect, o)) return false;
    for (int p = 0; p < SLOTS; p++)
        if ((s->d.holds[o] & entries(p, ALL_CHUNKS)) && !gone(s, OBJECT(DATA, p))) return false;
    return true;
}

static bool purge_blob(State *s, int b) {
    if (s->c.blob[b] != RETIRED || s->c.blob_older[b] || named_blob(s, b)) return false;
    if (b >= X && tagged(s, b)) return false;
    if (b < LAYERS && rule[purge_no_row])
        for (int m = X; m <= Y; m++)
            if (child[m] == b && s->c.blob[m] != NONE) return false;
    s->c.blob[b] = NONE;
    s->c.place[b] = 0;
    if (b < LAYERS) s->c.uses[b] = 0;
    return true;
}

static bool purge_object(State *s, int o) {
    if (s->c.state[o] != RETIRED || s->c.older[o]) return false;
    if (rule[purge_no_row] && (referred(s, o, true) || named_object(s, o))) return false;
    s->c.state[o] = DELETING;
    return true;
}

/* Rule 12: the rows of a dead lease go only after its folder, so that nothing can be renamed out of it any more. */
static bool orphans(State *s, int lease) {
    if (has_lease(s, lease) || (rule[lease_folder] && bit(s->d.folders, lease))) return false;
    bool any = false;
    for (int o = 0; o < OBJECTS; o++)
        if (SLOT(o) == lease && s->c.state[o] == PENDING) {
            s->c.state[o] = DELETING;
            any = true;
        }
    return any;
}

/* The epoch changes, in catalog and store, once the rows say `deleting` and before their files go: a catalog that
   still counts on one of these files is then of an older epoch. (Left out where no backup is in the run.) */
static bool turn_epoch(State *s) {
    uint32_t waiting = 0;
    for (int o = 0; o < OBJECTS; o++)
        if (s->c.state[o] == DELETING && !bit(s->c.turned, o)) waiting |= 1u << o;
    if (!present[BACKUP] || !rule[epoch_turns] || !waiting) return false;
    s->c.turned |= waiting;
    if (s->a.pc[BACKUP] == 1) s->a.turned = 1;
    return true;
}

static bool may_go(const State *s, int o) {
    return s->c.state[o] == DELETING && (bit(s->c.turned, o) || !present[BACKUP] || !rule[epoch_turns]);
}

static bool unlink_file(State *s, int o) {
    if (!may_go(s, o) || s->d.file[o] == ABSENT || s->d.file[o] == UNLINKED) return false;
    s->d.file[o] = rule[unlink_sync] ? ABSENT : UNLINKED;
    return true;
}

static bool drop(State *s, int o) {
    if (!may_go(s, o) || (s->d.file[o] != ABSENT && s->d.file[o] != UNLINKED)) return false;
    s->c.state[o] = NONE;
    s->c.suspect &= ~(1u << o);
    s->c.turned &= ~(1u << o);
    s->d.rot[o] = 0;
    if (s->d.file[o] == ABSENT) s->d.holds[o] = 0;
    if (!rule[drop_by_key] && KIND(o) == LOOSE) { /* by digest */
        int b = job[SLOT(o)].layer;
        s->c.blob[b] = NONE;
        s->c.place[b] = 0;
        s->c.uses[b] = 0;
    }
    return true;
}

/* All that is `deleting`, in one step: nobody sees such a row, so when exactly each goes makes no difference to
   anybody (run with `fine` to have it step by step all the same). */
static bool delete_all(State *s) {
    bool any = false;
    for (int o = 0; o < OBJECTS; o++)
        if (may_go(s, o)) {
            unlink_file(s, o);
            drop(s, o);
            any = true;
        }
    return any;
}

static bool remove_folder(State *s, int lease) {
    if (!bit(s->d.folders, lease) || has_lease(s, lease)) return false;
    s->d.folders &= (uint8_t)~(1 << lease);
    for (int o = 0; o < OBJECTS; o++)
        if (mine(s, o, lease, STAGED)) s->d.file[o] = ABSENT;
    return true;
}

/* One transaction (or one thing done to files) of the collector. False: its precondition does not hold. */
bool collect(State *s, int move, int i) {
    if (s->c.mismatch && rule[epoch_gc]) return false; /* the catalog came from a backup: nothing goes until check */
    if (s->c.behind && rule[look_first]) return false; /* rule 18 */
    switch (move) {
    case RETIRE_BLOB: return retire_blob(s, i);
    case RETIRE_OBJECT:
        if (!may_retire_object(s, i)) return false;
        retire_object(s, i);
        return true;
    case PURGE_BLOB: return purge_blob(s, i);
    case PURGE_OBJECT: return purge_object(s, i);
    case ORPHANS: return i && orphans(s, i);
    case TURN: return turn_epoch(s);
    case DELETE: return !fine && delete_all(s);
    case UNLINK: return fine && unlink_file(s, i);
    case DROP: return fine && drop(s, i);
    case TMP: return i && remove_folder(s, i);
    default: return false;
    }
}

/* ---- check after a restore ----------------------------------------------------------------------------------- */

/* What outlives the catalog that is replaced: the files, and the copy of its names. They tell on an older one. */
void set_back(State *s, const State *lost) {
    s->a.names = lost->c.tags;
    s->a.promised = (uint8_t)sound(lost);
    bool later = lost->c.tags != s->c.tags;
    for (int b = 0; b < LAYERS; b++) {
        if (lost->c.pin[b] == PROMISE) s->a.pins |= (uint8_t)(1 << b);
        if (lost->c.pin[b] != s->c.pin[b]) later = true;
    }
    for (int o = 0; o < OBJECTS; o++)
        if (on_disk(s, o) && s->c.state[o] == NONE) later = true;
    s->c.behind = later;
}

/* May a blob lie in this object, now that check has taken it in? */
static bool takes(const State *s, int o) {
    return s->c.state[o] == LIVE && on_disk(s, o) && !bit(s->c.suspect, o) && !s->d.rot[o];
}

/* A blob that is not live, or damaged, where its file or its record says. */
static void take_blob(State *s, int b) {
    if (s->c.blob[b] == LIVE && !damaged(s, b)) return;
    if (b >= LAYERS && s->c.blob[child[b]] != LIVE) return;
    if (s->c.blob[b] == RETIRED && !rule[take_retired]) return;
    for (int slot = 0; slot < SLOTS; slot++) {
        int loose = OBJECT(LOOSE, slot), meta = OBJECT(META, slot);
        if (b < LAYERS && takes(s, loose) && job[slot].layer == b) {
            s->c.place[b] = (uint8_t)(loose + 1);
            s->c.uses[b] = 0;
            blob_live(s, b);
            return;
        }
        unsigned needs = takes(s, meta) ? s->d.holds[meta] >> 2 * b & 3 : 0;
        uint16_t uses = 0;
        for (int c = 0; c < CHUNKS && b < LAYERS; c++)
            for (int p = 0; p < SLOTS && bit(needs, c); p++)
                if (takes(s, OBJECT(DATA, p)) && bit(s->d.holds[OBJECT(DATA, p)], c)) {
                    uses |= (uint16_t)entries(p, 1u << c);
                    break;
                }
        unsigned found = (uses | uses >> 2 | uses >> 4 | uses >> 6 | uses >> 8) & 3;
        if (!needs || (b < LAYERS && found != needs)) continue;
        s->c.place[b] = (uint8_t)(meta + 1);
        if (b < LAYERS) s->c.uses[b] = uses;
        blob_live(s, b);
        return;
    }
}

/* Objects whose files are there: without a row, begun by a commit that the catalog does not know the end of, or on their
   way out. Then the blobs in them; then the names, by their copy. What has none goes its way again. */
static void take_in(State *s) {
    for (int o = 0; o < OBJECTS; o++) {
        int state = s->c.state[o];
        if (!on_disk(s, o) || bit(s->c.suspect, o)) continue;
        if ((state == NONE && rule[take_unknown]) || (state == PENDING && rule[take_pending] && (rule[take_killed] || !bit(s->d.folders, SLOT(o)))) ||
            (state == RETIRED && rule[take_retired]))
            make_live(s, o);
    }
    for (int b = 0; b < BLOBS; b++) take_blob(s, b);
    if (!rule[take_names]) return;
    for (int m = X; m <= Y; m++)
        if (bit(s->a.names, m - X) && s->c.blob[m] == LIVE) s->c.tags |= (uint8_t)(1 << (m - X));
    for (int b = 0; b < LAYERS; b++)
        if (bit(s->a.pins, b)) s->c.pin[b] = s->c.blob[b] == LIVE ? PROMISE : WISH;
}

/* Reads the rows, then looks for their files: what is not there is suspect. Then lists the files and looks their rows
   up: what has no row gets one that says `deleting`, so that it goes the usual way. */
void check_mark(State *s) {
    for (int o = 0; o < OBJECTS; o++) {
        bool there = on_disk(s, o);
        if ((s->c.state[o] == LIVE || s->c.state[o] == RETIRED) && !there) s->c.suspect |= 1u << o;
        if (s->c.state[o] == NONE && there && !takein) s->c.state[o] = DELETING;
    }
    if (takein && (s->c.mismatch || s->c.behind)) take_in(s);
}

void check_epoch(State *s) {
    s->c.mismatch = s->c.behind = 0;
    s->a.keepers = 0;
}
