/* What must hold in every state, and after everything died and the collector ran to its end. */
#include "model.h"

#include <stdio.h>

const char *const kind_letter = "LPMS", *const blob_letter = "BCXY";
char why[160];

bool on_disk(const State *s, int o) { return s->d.file[o] == RENAMED || s->d.file[o] == DURABLE; }

static bool no(const char *what, int a, int b) {
    snprintf(why, sizeof why, what, a, b);
    return false;
}

/* Rows of what is readable must be live; where only bytes count, they must be there. */
static bool row_good(int state) { return bytes_only ? state != NONE : state == LIVE; }

/* Is the object's file there, and this piece of it sound? Where not `strictly`, rot is excused, and, after a restore,
   what check has marked. */
static bool piece(const State *s, int o, unsigned bits, bool strictly) {
    if (!strictly && s->a.restored == 2 && bit(s->c.suspect, o)) return true;
    return on_disk(s, o) && row_good(s->c.state[o]) && !(strictly && (s->d.rot[o] & bits));
}

/* Can a reader get the whole blob (a manifest: with its layer) now? */
bool readable(const State *s, int b, bool strictly) {
    if (!row_good(s->c.blob[b])) return no("%c has no live row", blob_letter[b], 0);
    int o = s->c.place[b] - 1;
    if (o < 0) return no("%c has no place", blob_letter[b], 0);
    if (!piece(s, o, KIND(o) == META ? 1u << b : 1, strictly))
        return no("%c%d is gone", kind_letter[KIND(o)], SLOT(o));
    if (KIND(o) == LOOSE) return true;
    bool lost = !on_disk(s, o); /* excused, and then nothing can be said of the chunks */
    unsigned needs = s->d.holds[o] >> 2 * b & 3;
    if (!needs && !lost) return no("no record of %c in M%d", blob_letter[b], SLOT(o));
    if (b >= LAYERS) return readable(s, child[b], strictly);
    if (lost) return true;
    bool blind = false; /* with a segment unreadable, readers turn to the packs' own tables */
    unsigned index = 0, covered = 0;
    for (int g = 0; g < SLOTS; g++) {
        int segment = OBJECT(SEGMENT, g);
        if (s->c.state[segment] != LIVE) continue;
        if (!on_disk(s, segment) || s->d.rot[segment]) blind = true;
        else index |= s->d.holds[segment];
    }
    for (int c = 0; c < CHUNKS; c++) {
        if (!bit(needs, c)) continue;
        bool found = false, excused = false;
        for (int p = 0; p < SLOTS; p++) {
            int pack = OBJECT(DATA, p);
            unsigned edge = s->c.uses[b] >> 2 * p & 3;
            covered |= edge;
            if (!edge && rule[edge_packs_only]) continue;
            if (!on_disk(s, pack)) {
                if (edge && !strictly && s->a.restored == 2 && bit(s->c.suspect, pack)) excused = true;
                continue;
            }
            if (!bit(s->d.holds[pack], c) || !piece(s, pack, 1u << c, strictly)) continue;
            if (blind || (index & entries(p, 1u << c))) found = true;
        }
        if (!found && !excused) return no("chunk %d of %c is in no pack that can be read", c, blob_letter[b]);
    }
    if ((needs & ~covered) && rule[edge_packs_only])
        return no("the edges of %c do not say where all its chunks are", blob_letter[b], 0);
    return true;
}

bool reachable(const State *s, int b) {
    if (b >= X) return tagged(s, b);
    for (int m = X; m <= Y; m++)
        if (tagged(s, m) && child[m] == b) return true;
    return s->c.pin[b] == PROMISE;
}

/* What is reachable and readable with nothing excused. */
unsigned sound(const State *s) {
    unsigned mask = 0;
    for (int b = 0; b < BLOBS; b++)
        if (reachable(s, b) && readable(s, b, true)) mask |= 1u << b;
    return mask;
}

uint32_t needed_files(const State *s) {
    uint32_t mask = 0;
    for (int b = 0; b < BLOBS; b++) {
        if (!reachable(s, b) || !s->c.place[b]) continue;
        if (on_disk(s, s->c.place[b] - 1)) mask |= 1u << (s->c.place[b] - 1);
        for (int p = 0; p < SLOTS && b < LAYERS; p++)
            if ((s->c.uses[b] >> 2 * p & 3) && on_disk(s, OBJECT(DATA, p))) mask |= 1u << OBJECT(DATA, p);
    }
    return mask;
}

/* Everything that a tag or a pin promises is readable now. Rot is excused (explore.c sees to it that nothing but rot
   makes a sound blob unsound). */
void check_state(const State *s, const char *when) {
    bool strictly = !present[DECAY] && s->a.restored != 2;
    for (int o = 0; o < OBJECTS; o++)
        if (bit(s->a.keepers, o) && !on_disk(s, o)) {
            violation("%s: a file of the lost catalog went before check: %c%d", when, kind_letter[KIND(o)], SLOT(o));
            return;
        }
    if (s->c.mismatch) return; /* the catalog is older than the files: check will say what is missing */
    for (int b = 0; b < BLOBS; b++)
        if (reachable(s, b) && !readable(s, b, strictly)) {
            violation("%s: %c is promised, but %s", when, blob_letter[b], why);
            return;
        }
}

static void collect_to_the_end(State *s) {
    int moves = 0;
    for (bool any = true; any;) {
        any = false;
        for (int move = 0; move < COLLECTOR_MOVES; move++)
            for (int i = move_range[move] - 1; i >= 0; i--) /* manifests before layers */
                if (collect(s, move, i)) {
                    any = true;
                    if (++moves > 1000) {
                        violation("the collector does not end");
                        return;
                    }
                }
    }
}

/* What the lost catalog promised and had sound is so again. */
void check_promised(const State *s, const char *when) {
    for (int b = 0; b < BLOBS; b++)
        if (bit(s->a.promised, b) && !(reachable(s, b) && readable(s, b, true)))
            violation("%s: %c, which the lost catalog had, has not come back: %s", when, blob_letter[b],
                      reachable(s, b) ? why : "nothing names it");
}

/* All die, in this state; leases run out; after a restore, check runs; the collector runs to its end. Then everything
   promised is as readable as it was, and nothing else is left. */
static void recovery(State s, bool power_loss) {
    const char *when = power_loss ? "after power loss and collection" : "after everybody died and collection";
    unsigned before = sound(&s);
    for (int o = 0; o < OBJECTS; o++) {
        if (s.d.file[o] == UNLINKED) s.d.file[o] = power_loss ? DURABLE : ABSENT;
        if (s.d.file[o] == RENAMED) s.d.file[o] = power_loss ? ABSENT : DURABLE;
    }
    for (int l = 1; l < SLOTS; l++) lease_end(&s, l);
    s.c.plan = 0;
    if (s.a.restored && s.a.pc[BACKUP] < DONE && (s.c.mismatch || rule[epoch_turns])) {
        check_mark(&s);
        check_epoch(&s);
    }
    collect_to_the_end(&s);
    if (violated()) return;
    check_state(&s, when);
    if (takein) check_promised(&s, when);
    if (violated()) return;
    if (before & ~sound(&s)) {
        violation("%s: a sound blob is not sound any more: %s", when, why);
        return;
    }
    for (int b = 0; b < BLOBS; b++)
        if ((s.c.blob[b] != NONE) != reachable(&s, b)) {
            violation("%s: the row of %c %s", when, blob_letter[b], s.c.blob[b] ? "stays" : "is gone");
            return;
        }
    for (int o = 0; o < OBJECTS; o++) {
        bool used = referred(&s, o, bytes_only);
        if (KIND(o) == SEGMENT) {
            used = s.c.state[o] == LIVE && bit(s.c.suspect, o); /* waits for the rebuild */
            for (int p = 0; p < SLOTS; p++)
                if ((s.d.holds[o] & entries(p, ALL_CHUNKS)) && s.c.state[OBJECT(DATA, p)] == LIVE)
                    used |= s.c.state[o] == LIVE;
        }
        if (used) continue;
        if (s.c.state[o] != NONE) violation("%s: a row is left: %c%d", when, kind_letter[KIND(o)], SLOT(o));
        else if (s.d.file[o] != ABSENT && s.d.file[o] != UNLINKED && (rule[lease_folder] || on_disk(&s, o)))
            violation("%s: a file without row is left: %c%d", when, kind_letter[KIND(o)], SLOT(o));
        if (violated()) return;
    }
    if (s.d.folders) violation("%s: a folder of a lease is left", when);
}

void check_recovery(const State *s) {
    recovery(*s, false);
    if (!violated() && (!rule[unlink_sync] || !rule[put_sync])) recovery(*s, true);
}
