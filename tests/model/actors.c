/* Readers, and those without a lease; whose turn it is. */
#include "steps.h"

/* ---- readers: X and its layer under a lease; B by digest without ---------------------------------------------- */

enum { D_OPEN, D_RESOLVE, D_SEGMENTS, D_READ, D_CLOSE };
/* v: slots of the segments of the snapshot, << 5 the place of B, << 10 the place of X; u: B's uses */

static unsigned snapshot(const State *s, bool leased) {
    unsigned place = s->c.place[B];
    return (place && KIND(place - 1) == META ? live_segments(s) : 0) | place << 5 |
           (leased ? (unsigned)s->c.place[X] << 10 : 0);
}

/* 0 all read · 1 a file is gone · 2 rotten */
static int read_blob(const State *s, int me, int *which) {
    unsigned segments = s->a.v[me] & 31, uses = s->a.u[me];
    int place = (int)(s->a.v[me] >> 5 & 31) - 1, manifest = (int)(s->a.v[me] >> 10 & 31) - 1;
    int result = 0;
    for (int i = 0; i < 2; i++) {
        int o = i ? place : manifest;
        if (o < 0) continue;
        *which = o;
        if (!on_disk(s, o)) return 1;
        if (KIND(o) == META ? !record(s, o, i ? B : X) : s->d.rot[o]) return 2;
    }
    if (KIND(place) == LOOSE) return 0;
    bool blind = false; /* a segment that cannot be read: the packs' own tables will do */
    for (int g = 0; g < SLOTS; g++)
        if (bit(segments, g) && !reads_whole(s, OBJECT(SEGMENT, g))) blind = true;
    for (int c = 0; c < CHUNKS; c++) {
        if (!bit(record(s, place, B), c)) continue;
        int found = 3;
        for (int p = 0; p < SLOTS && found; p++) {
            int o = OBJECT(DATA, p);
            unsigned edge = uses >> 2 * p & 3;
            bool listed = blind && bit(s->d.holds[o] | edge, c);
            for (int g = 0; g < SLOTS; g++)
                if (bit(segments, g) && (s->d.holds[OBJECT(SEGMENT, g)] & entries(p, 1u << c))) listed = true;
            if (!listed || (rule[edge_packs_only] && !edge)) continue;
            int r = !on_disk(s, o) ? 1 : bit(s->d.rot[o], c) ? 2 : 0;
            if (found == 3 || r != 1) found = r; /* rotten here: the next edge may do */
            *which = o;
            if (!rule[edge_packs_only]) break;
        }
        if (found == 2) result = 2;
        else if (found) return 1;
    }
    return result;
}

static void reader(State n, int me) {
    bool leased = me != CAT;
    int which = 0;
    switch (n.a.pc[me]) {
    case D_OPEN:
        if (leased) lease_open(&n, me);
        if (!leased && reachable(&n, B)) n.a.known |= 1;
        step(&n, me, D_RESOLVE, leased ? "lease.open" : "begins");
        break;
    case D_RESOLVE: {
        if (leased && !has_lease(&n, me)) {
            step(&n, me, FAILED, "finds its lease gone");
            break;
        }
        bool there = n.c.blob[B] == LIVE && (!leased || (tagged(&n, X) && n.c.blob[X] == LIVE));
        if (bytes_only && !leased) there = n.c.blob[B] != NONE;
        if (!there) {
            if (!leased && (n.a.known & 1))
                violation("reader without lease: 'not found' for a blob that was reachable all along");
            step(&n, me, leased ? D_CLOSE : DONE, "resolves: not found");
            break;
        }
        if (leased) {
            name_blob(&n, me, X);
            name_blob(&n, me, B);
        }
        n.a.v[me] = snapshot(&n, leased);
        n.a.u[me] = n.c.uses[B];
        if (leased && !rule[age]) { /* without age, names must do, of objects too */
            name_object(&n, me, n.c.place[B] - 1);
            name_object(&n, me, n.c.place[X] - 1);
            for (int p = 0; p < SLOTS; p++) {
                if (n.c.uses[B] >> 2 * p & 3) name_object(&n, me, OBJECT(DATA, p));
                if (bit(n.a.v[me] & 31, p)) name_object(&n, me, OBJECT(SEGMENT, p));
            }
        }
        step(&n, me, n.a.v[me] & 31 ? D_SEGMENTS : D_READ, "resolves: place, edges, segments");
        break;
    }
    case D_SEGMENTS:
    case D_READ: {
        bool opening = n.a.pc[me] == D_SEGMENTS;
        int result = 0;
        if (opening) {
            for (int g = 0; g < SLOTS && !result; g++)
                if (bit(n.a.v[me] & 31, g) && !on_disk(&n, OBJECT(SEGMENT, g)) &&
                    !lost_by_restore(&n, OBJECT(SEGMENT, g))) {
                    result = 1;
                    which = OBJECT(SEGMENT, g);
                }
        } else {
            result = read_blob(&n, me, &which);
        }
        if (result == 1 && lost_by_restore(&n, which)) result = 2; /* the same as rot */
        const char *what = opening ? "opens the segments" : "reads the bytes";
        if (result == 0 || result == 2) {
            step(&n, me, opening && !result ? D_READ : leased ? D_CLOSE : DONE, what);
            break;
        }
        if (leased) {
            if (has_lease(&n, me))
                violation("reader with lease: %c%d is gone", kind_letter[KIND(which)], SLOT(which));
            step(&n, me, FAILED, what);
            break;
        }
        bool same = n.c.blob[B] == LIVE && n.a.u[me] == n.c.uses[B] && n.a.v[me] == snapshot(&n, false);
        if (same)
            violation("reader without lease: %c%d is gone and the catalog stands still", kind_letter[KIND(which)],
                      SLOT(which));
        n.a.v[me] = n.a.u[me] = 0;
        step(&n, me, D_RESOLVE, "finds a file gone: resolves again");
        break;
    }
    case D_CLOSE:
        lease_end(&n, me);
        step(&n, me, DONE, "lease.close");
        break;
    }
}

/* ---- those without a lease: one-time moves -------------------------------------------------------------------- */

enum { UNTAG_X, UNTAG_Y, TAG_X, PIN_B, UNPIN_B };

static void once(const State *s, int who, int move, const char *what) {
    State n = *s;
    if (bit(n.a.moves, move)) return;
    switch (move) {
    case UNTAG_X:
    case UNTAG_Y:
        if (!bit(n.c.tags, move)) return;
        n.c.tags &= (uint8_t)~(1 << move);
        break;
    case TAG_X: /* rule 3 */
        if (tagged(&n, X) || (rule[tag_live] ? n.c.blob[X] != LIVE : n.c.blob[X] == NONE)) return;
        n.c.tags |= 1;
        break;
    case PIN_B: /* anything may be pinned; only what is live is promised */
        n.c.pin[B] = (rule[pin_live] ? n.c.blob[B] == LIVE : n.c.blob[B] != NONE) ? PROMISE : WISH;
        break;
    case UNPIN_B:
        if (!n.c.pin[B]) return;
        n.c.pin[B] = UNPINNED;
        break;
    }
    n.a.moves |= (uint8_t)(1 << move);
    emit(&n, who * 32 + move, what);
}

/* One piece of one target goes bad, once; afterwards somebody finds it. */
static void decay(const State *s) {
    if (s->a.pc[DECAY] == 0)
        for (int o = 0; o < OBJECTS; o++) {
            if (!bit(decay_targets, o) || !on_disk(s, o)) continue;
            int pieces = KIND(o) == DATA ? CHUNKS : KIND(o) == META ? BLOBS : 1;
            for (int i = 0; i < pieces; i++) {
                unsigned held = KIND(o) == META ? s->d.holds[o] >> 2 * i & 3 : s->d.holds[o] >> i & 1;
                if (pieces > 1 && !held) continue;
                State n = *s;
                n.d.rot[o] = (uint8_t)(1 << i);
                step(&n, DECAY, 1, "something goes bad");
            }
        }
    for (int o = 0; o < OBJECTS && s->a.pc[DECAY] == 1; o++) {
        if (!s->d.rot[o] || bit(s->c.suspect, o) || (s->c.state[o] != LIVE && s->c.state[o] != RETIRED)) continue;
        State n = *s;
        n.c.suspect |= 1u << o;
        n.a.known |= 128;
        step(&n, DECAY, 1, "it is found: suspect");
    }
}

/* A sound object is called rotten (a bad cable, say). */
static void alarm_(State n) {
    for (int o = 0; o < OBJECTS && !n.a.pc[ALARM]; o++)
        if (bit(alarm_target, o) && (n.c.state[o] == LIVE || n.c.state[o] == RETIRED)) {
            n.c.suspect |= 1u << o;
            step(&n, ALARM, DONE, "a false alarm: suspect");
            return;
        }
}

/* A backup of the catalog alone is taken, and comes back later with everybody dead; then check runs. */
static void backup(State n) {
    switch (n.a.pc[BACKUP]) {
    case 0:
        n.backup = n.c;
        step(&n, BACKUP, 1, "backup of the catalog");
        break;
    case 1: {
        State lost = n;
        uint32_t keepers = needed_files(&n);
        n.c = n.backup;
        n.backup = (Catalog){0};
        n.c.turned = 0;
        n.c.mismatch = n.a.turned;
        for (int i = 1; i < ACTORS; i++) {
            n.a.v[i] = n.a.u[i] = 0;
            if (i == BACKUP) continue;
            n.a.pc[i] = i < SLOTS && job[i].late ? 0 : FAILED;
        }
        n.a.known = 0;
        if (takein) set_back(&n, &lost);
        n.a.keepers = n.c.mismatch || n.c.behind ? keepers : 0;
        n.a.restored = n.a.turned ? 2 : 1;
        n.a.turned = 0;
        step(&n, BACKUP, rule[check_before_epoch] ? 2 : 3, "all die; the backup is restored");
        break;
    }
    case 2:
        check_mark(&n);
        step(&n, BACKUP, 3, "check: marks what is missing, claims what is unknown");
        break;
    case 3:
        check_epoch(&n);
        if (takein) check_promised(&n, "after check");
        step(&n, BACKUP, DONE, "check: the epoch is the store's again");
        break;
    }
}

void act(const State *s, int actor) {
    if (!present[actor] || s->a.pc[actor] >= DONE) return;
    if (actor < SLOTS) {
        if (job[actor].late && !s->a.restored) return;
        /* Upkeep waits for check. */
        if (s->c.mismatch && job[actor].role != WRITER && job[actor].role != READER) return;
    }
    switch (actor) {
    case CAT: reader(*s, actor); return;
    case TAGGER:
        once(s, actor, UNTAG_X, "untag X");
        once(s, actor, UNTAG_Y, "untag Y");
        once(s, actor, TAG_X, "tag X");
        return;
    case PINNER:
        once(s, actor, PIN_B, "pin B");
        once(s, actor, UNPIN_B, "unpin B");
        return;
    case DECAY: decay(s); return;
    case ALARM: alarm_(*s); return;
    case BACKUP: backup(*s); return;
    default: break;
    }
    switch (job[actor].role) {
    case WRITER: writer(*s, actor); break;
    case PACKER: packer(*s, actor); break;
    case REPACKER: repacker(*s, actor); break;
    case METAREPACKER: metarepacker(*s, actor); break;
    case MERGER:
    case REBUILDER: indexer(*s, actor); break;
    case READER: reader(*s, actor); break;
    case NOBODY: break;
    }
}
