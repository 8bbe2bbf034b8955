/* Breadth-first search through every interleaving; the first violation found has a shortest trace. States are told
   apart by a 64-bit hash. Usage: see README.md. */
#include "model.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool rule[RULE_COUNT];
#define TEXT(r) #r,
static const char *const rule_name[] = {RULES(TEXT)};
#undef TEXT
Job job[SLOTS];
int child[BLOBS] = {-1, -1, B, C};
bool present[ACTORS], bytes_only, fine, takein;
uint32_t decay_targets, alarm_target;

static char bad[400];
static int bad_step; /* which of the steps being made broke it */
static int next_count;

bool violated(void) { return bad[0] != 0; }

void violation(const char *format, ...) {
    if (violated()) return;
    bad_step = next_count;
    va_list args;
    va_start(args, format);
    vsnprintf(bad, sizeof bad, format, args);
    va_end(args);
}

/* ---- successors ---------------------------------------------------------------------------------------------- */

enum { COLLECT = ACTORS * 32, EXPIRE = COLLECT + COLLECTOR_MOVES * 32 };
typedef struct {
    int action;
    const char *text;
} Label;
static struct { State s; Label label; } next[256];

void emit(const State *n, int action, const char *what) {
    next[next_count].s = *n;
    next[next_count].label = (Label){action, what};
    Actors *a = &next[next_count++].s.a;
    if (!reachable(n, B) || a->pc[CAT] >= DONE) a->known &= 128; /* the ghost: reachable all along? */
}

static void successors(const State *s) {
    static const char *const moves[] = {"gc.retire blob", "gc.retire object", "gc.purge blob", "gc.purge object",
                                        "gc.orphan: pending objects of", "gc: the epoch changes",
                                        "gc.file, gc.drop: all that is deleting",
                                        "gc.file", "gc.drop", "gc.tmp: folder of"};
    next_count = 0;
    for (int actor = 1; actor < ACTORS; actor++) act(s, actor);
    State n = *s;
    for (int move = 0; move < COLLECTOR_MOVES; move++)
        for (int i = 0; i < move_range[move]; i++)
            if (collect(&n, move, i)) { /* else it changed nothing */
                emit(&n, COLLECT + move * 32 + i, moves[move]);
                n = *s;
            }
    for (int l = 1; l < SLOTS; l++) {
        if (!has_lease(s, l)) continue;
        n = *s;
        if (rule[expired_protects]) {
            lease_end(&n, l);
        } else { /* past its time; the row stays until some later collection, which may never be */
            if (s->c.expired >> l & 1) continue;
            n.c.expired |= 1 << l;
            for (int o = 0; o < OBJECTS; o++) n.c.older[o] &= (uint8_t)~(1 << l);
            for (int b = 0; b < BLOBS; b++) n.c.blob_older[b] &= (uint8_t)~(1 << l);
        }
        emit(&n, EXPIRE + l, "lease.expire:");
    }
}

static const char *slot_name(int slot) {
    static const char *const roles[] = {"nobody", "writer", "packer", "repacker", "metarepacker", "merger",
                                        "rebuilder", "reader"};
    static char buffer[32];
    snprintf(buffer, sizeof buffer, "%s%d", job[slot].pipe ? "pipe" : roles[job[slot].role], slot);
    return buffer;
}

static void print_step(int n, Label label) {
    int action = label.action;
    static const char *const others[] = {"cat", "tagger", "pinner", "decay", "alarm", "operator"};
    printf("  %3d. ", n);
    if (action < COLLECT) {
        int actor = action / 32;
        printf("%s: %s\n", actor < SLOTS ? slot_name(actor) : others[actor - SLOTS], label.text);
    } else if (action < EXPIRE) {
        int move = (action - COLLECT) / 32, i = (action - COLLECT) % 32;
        printf("%s", label.text);
        if (move == RETIRE_BLOB || move == PURGE_BLOB) printf(" %c", blob_letter[i]);
        else if (move == ORPHANS || move == TMP) printf(" %s", slot_name(i));
        else if (move != DELETE && move != TURN) printf(" %c%d", kind_letter[KIND(i)], SLOT(i));
        putchar('\n');
    } else {
        printf("%s %s\n", label.text, slot_name(action - EXPIRE));
    }
}

static void print_trace(const Label *trace, int length) {
    printf("VIOLATION %s (%d steps)\n", bad, length);
    for (int i = 0; i < length; i++) print_step(i + 1, trace[i]);
}

/* ---- search -------------------------------------------------------------------------------------------------- */

static void *reserve(void *old, size_t bytes) {
    void *memory = realloc(old, bytes);
    if (!memory) {
        fprintf(stderr, "out of memory\n");
        exit(2);
    }
    return memory;
}

static size_t state_size;

static uint64_t hash(const State *s) {
    const unsigned char *bytes = (const unsigned char *)s;
    uint64_t h = 0x243f6a8885a308d3ull, w;
    for (size_t i = 0; i < state_size; i += 8) {
        w = 0;
        memcpy(&w, bytes + i, state_size - i < 8 ? state_size - i : 8);
        h = (h ^ w) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 29;
        h = (h << 31 | h >> 33) * 0xbf58476d1ce4e5b9ull;
    }
    h ^= h >> 32;
    h *= 0x94d049bb133111ebull;
    h ^= h >> 30;
    return h ? h : 1;
}

static uint64_t *table;
static size_t table_size, seen;

static bool insert(uint64_t h) {
    if (seen * 10 >= table_size * 6) {
        size_t old_size = table_size;
        uint64_t *old = table;
        table_size = old_size ? old_size * 2 : 1 << 16;
        table = memset(reserve(NULL, table_size * sizeof *table), 0, table_size * sizeof *table);
        for (size_t i = 0; i < old_size; i++) {
            if (!old[i]) continue;
            size_t j = old[i] & (table_size - 1);
            while (table[j]) j = (j + 1) & (table_size - 1);
            table[j] = old[i];
        }
        free(old);
    }
    size_t j = h & (table_size - 1);
    while (table[j]) {
        if (table[j] == h) return false;
        j = (j + 1) & (table_size - 1);
    }
    table[j] = h;
    seen++;
    return true;
}

/* States of one distance from the start. */
typedef struct {
    unsigned char *states;
    uint32_t *ids;
    size_t count, room;
} Front;

static void push(Front *f, const State *s, uint32_t id) {
    if (f->count == f->room) {
        f->room = f->room ? f->room * 2 : 1024;
        f->states = reserve(f->states, f->room * state_size);
        f->ids = reserve(f->ids, f->room * sizeof *f->ids);
    }
    memcpy(f->states + f->count * state_size, s, state_size);
    f->ids[f->count++] = id;
}

static struct { uint32_t parent; int action; const char *text; } *history;
static size_t history_room;

static void remember(size_t id, uint32_t parent, Label label) {
    if (id >= history_room) {
        history_room = history_room ? history_room * 2 : 1 << 14;
        history = reserve(history, history_room * sizeof *history);
    }
    history[id].parent = parent;
    history[id].action = label.action;
    history[id].text = label.text;
}

/* Rot that nobody has found yet, in what the blob stands on. */
static bool hidden_rot(const State *s, int b) {
    int o = s->c.place[b] - 1;
    if (o >= 0 && s->d.rot[o] && !(s->c.suspect >> o & 1)) return true;
    if (b >= LAYERS) return hidden_rot(s, child[b]);
    for (int p = 0; p < SLOTS; p++)
        if ((s->c.uses[b] >> 2 * p & 3) && s->d.rot[OBJECT(DATA, p)] && !(s->c.suspect >> OBJECT(DATA, p) & 1))
            return true;
    return false;
}

/* Nothing but rot and a restore makes a sound blob unsound while it is promised. (A blob may be moved onto what went
   bad after it was verified; onto what is known to be bad, never.) */
static void check_change(unsigned was_sound, const State *n, int action) {
    if (action / 32 == DECAY || action / 32 == BACKUP || !was_sound) return;
    unsigned now = sound(n);
    for (int b = 0; b < BLOBS; b++)
        if ((was_sound >> b & 1) && !(now >> b & 1) && reachable(n, b) && !hidden_rot(n, b)) {
            readable(n, b, true);
            violation("%c was sound, and is not any more: %s", blob_letter[b], why);
        }
}

static int search(const State *start, size_t limit, int *depth, uint64_t *steps) {
    Front now = {0}, later = {0};
    Label last = {-1, NULL};
    uint32_t at = 0;
    bool soundness = present[DECAY] || present[BACKUP] || present[ALARM];
    insert(hash(start));
    remember(0, 0, last);
    push(&now, start, 0);
    check_state(start, "at the start");
    if (!violated()) check_recovery(start);
    for (*depth = 0; now.count && !violated() && seen <= limit; (*depth)++) {
        later.count = 0;
        for (size_t k = 0; k < now.count && !violated(); k++) {
            State s = {0};
            memcpy(&s, now.states + k * state_size, state_size);
            unsigned was_sound = soundness ? sound(&s) : 0;
            successors(&s);
            for (int i = 0; i < next_count; i++) {
                const State *n = &next[i].s;
                ++*steps;
                if (!violated() && soundness) check_change(was_sound, n, next[i].label.action);
                bool found_now = violated();
                if (!found_now && insert(hash(n))) {
                    remember(seen - 1, now.ids[k], next[i].label);
                    push(&later, n, (uint32_t)(seen - 1));
                    check_state(n, "now");
                    if (!violated()) check_recovery(n);
                    found_now = violated();
                }
                if (found_now) {
                    last = next[bad_step < next_count ? bad_step : i].label;
                    break;
                }
            }
            if (violated()) at = now.ids[k];
        }
        Front swap = now;
        now = later;
        later = swap;
    }
    if (!violated()) return seen > limit ? 3 : 0;
    int length = 0;
    for (uint32_t i = at; i; i = history[i].parent) length++;
    Label *trace = reserve(NULL, (size_t)(length + 1) * sizeof *trace);
    trace[length] = last;
    int n = length;
    for (uint32_t i = at; i; i = history[i].parent) trace[--n] = (Label){history[i].action, history[i].text};
    print_trace(trace, last.text ? length + 1 : length);
    free(trace);
    return 1;
}

/* Random walks, for runs too large to search: leases seldom expire, so that they get far. */
static int wander(const State *start, size_t walks, uint64_t seed, int *depth, uint64_t *steps) {
    enum { LONGEST = 400 };
    static Label trace[LONGEST];
    uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
    bool soundness = present[DECAY] || present[BACKUP] || present[ALARM];
    for (; seen < walks; seen++) {
        State s = *start;
        unsigned lazy = x % 40 + 1;
        for (int length = 0; length < LONGEST; ++*steps) {
            unsigned was_sound = soundness ? sound(&s) : 0;
            successors(&s);
            int i = bad_step;
            if (!violated()) {
                if (!next_count) break;
                x ^= x << 13, x ^= x >> 7, x ^= x << 17;
                i = (int)(x % (unsigned)next_count);
                if (next[i].label.action >= EXPIRE && (x >> 20) % lazy) continue;
                s = next[i].s;
                if (soundness) check_change(was_sound, &s, next[i].label.action);
                if (!violated()) check_state(&s, "now");
                if (!violated()) check_recovery(&s);
            }
            trace[length++] = next[i].label;
            if (length > *depth) *depth = length;
            if (violated()) {
                print_trace(trace, length);
                return 1;
            }
        }
    }
    return 0;
}

/* ---- the run ------------------------------------------------------------------------------------------------- */

static void stored(State *s, int o, unsigned holds) {
    s->c.state[o] = LIVE;
    s->d.file[o] = DURABLE;
    s->d.holds[o] = (uint16_t)holds;
}

static void placed(State *s, int b, int o, unsigned uses) {
    s->c.blob[b] = LIVE;
    s->c.place[b] = (uint8_t)(o + 1);
    if (b < LAYERS) s->c.uses[b] = (uint16_t)uses;
}

/* empty · loose: X tagged, B loose · packed: X tagged, B in a pack that also holds another chunk · two: X and Y, their
   layers in one pack · dead: loose, and a pack that nobody uses holds B's chunk · half: packed, without the other chunk
   · pair: packed, with two index segments. */
static bool begin_with(State *s, const char *name, bool pinned) {
    int loose = OBJECT(LOOSE, 0), pack = OBJECT(DATA, 0), meta = OBJECT(META, 0), segment = OBJECT(SEGMENT, 0);
    unsigned x = 1u << 2 * X, y = 1u << 2 * Y, b = 1, c = 2u << 2 * C;
    if (!strcmp(name, "empty")) return true;
    s->c.tags = 1;
    if (!strcmp(name, "loose") || !strcmp(name, "dead")) {
        stored(s, loose, 0);
        stored(s, meta, x);
        placed(s, B, loose, 0);
        if (name[0] == 'd') {
            stored(s, pack, 1);
            stored(s, segment, entries(0, 1));
        }
    } else if (!strcmp(name, "packed") || !strcmp(name, "two") || !strcmp(name, "half") ||
               !strcmp(name, "pair")) {
        unsigned chunks = name[0] == 'h' ? 1 : ALL_CHUNKS;
        stored(s, pack, chunks);
        stored(s, segment, entries(0, chunks));
        if (name[1] == 'a' && name[2] == 'i') { /* the other one in the last slot, which nobody may have then */
            stored(s, segment, entries(0, 1));
            stored(s, OBJECT(SEGMENT, SLOTS - 1), entries(0, 2));
        }
        stored(s, meta, x | b | (name[0] == 't' ? y | c : 0));
        placed(s, B, meta, entries(0, 1));
        if (name[0] == 't') {
            placed(s, C, meta, entries(0, 2));
            placed(s, Y, meta, 0);
            s->c.tags = 3;
        }
    } else {
        return false;
    }
    placed(s, X, meta, 0);
    if (pinned) s->c.pin[B] = PROMISE;
    return true;
}

static int targets(const char *list, uint32_t *mask) {
    for (; list[0] && list[1]; list += 2) {
        const char *k = strchr(kind_letter, list[0]);
        if (!k || list[1] < '0' || list[1] >= '0' + SLOTS) return 0;
        *mask |= 1u << OBJECT((int)(k - kind_letter), list[1] - '0');
    }
    return 1;
}

/* "writer:BX:packed:3:two" and so on; see README.md. */
static bool add_actor(char *word, int *slots, bool late) {
    static const struct { const char *name; Role role; } roles[] = {
        {"writer", WRITER}, {"pipe", WRITER}, {"put", WRITER}, {"packer", PACKER}, {"repacker", REPACKER},
        {"metarepacker", METAREPACKER}, {"merger", MERGER}, {"rebuilder", REBUILDER}, {"reader", READER}};
    static const char *const others[] = {"cat", "tagger", "pinner", "decay", "alarm", "backup"};
    char *part = strtok(word, ":");
    for (int i = 0; i < 6; i++) {
        if (strcmp(part, others[i])) continue;
        present[CAT + i] = true;
        char *rest = strtok(NULL, ":");
        return !rest || targets(rest, CAT + i == DECAY ? &decay_targets : &alarm_target);
    }
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(part, roles[i].name)) continue;
        if (++*slots >= SLOTS) return false;
        Job *j = &job[*slots];
        *j = (Job){.role = roles[i].role, .layer = B, .manifest = X, .needs = 0, .late = late};
        j->pipe = !strcmp(part, "pipe");
        if (!strcmp(part, "put")) j->manifest = -1;
        while ((part = strtok(NULL, ":"))) {
            if (!strcmp(part, "packed")) j->packed = true;
            else if (!strcmp(part, "loose")) j->packed = false;
            else if (!strcmp(part, "two")) j->two = true;
            else if (part[0] >= '0' && part[0] <= '4' && j->role == REPACKER) j->from = part[0] - '0';
            else if (part[0] >= '1' && part[0] <= '3') j->needs = part[0] - '0';
            else if (part[0] == 'B' || part[0] == 'C') {
                j->layer = part[0] == 'B' ? B : C;
                if (part[1]) j->manifest = part[1] == 'X' ? X : Y;
            } else return false;
        }
        if (!j->needs) j->needs = j->layer == B ? 1 : 2;
        if (j->role == WRITER && j->manifest == Y) child[Y] = j->layer;
        if (j->role == WRITER && j->manifest == X && j->layer != B) return false; /* X's layer is B */
        present[*slots] = true;
        return true;
    }
    return false;
}

static bool switch_off(const char *name) {
    for (int r = 0; r < RULE_COUNT; r++)
        if (!strcmp(name, rule_name[r])) {
            rule[r] = false;
            return true;
        }
    return false;
}

int main(int argc, char **argv) {
    State start;
    memset(&start, 0, sizeof start);
    const char *begin = "empty";
    size_t limit = 200000000, walks = 0;
    uint64_t seed = 1;
    int slots = 0, depth = 0;
    bool pinned = false, late = false;
    uint64_t steps = 0;
    for (int r = 0; r < RULE_COUNT; r++) rule[r] = true;
    for (int i = 1; i < argc; i++) {
        char *word = argv[i], copy[64];
        bool good = true;
        snprintf(copy, sizeof copy, "%s", word);
        if (!strncmp(word, "start=", 6)) begin = word + 6;
        else if (!strncmp(word, "without=", 8)) good = switch_off(word + 8);
        else if (!strncmp(word, "limit=", 6)) limit = strtoull(word + 6, NULL, 10);
        else if (!strncmp(word, "walks=", 6)) walks = strtoull(word + 6, NULL, 10);
        else if (!strncmp(word, "seed=", 5)) seed = strtoull(word + 5, NULL, 10);
        else if (!strcmp(word, "bytes")) bytes_only = true;
        else if (!strcmp(word, "fine")) fine = true;
        else if (!strcmp(word, "takein")) takein = true;
        else if (!strcmp(word, "pinned")) pinned = true;
        else if (!strcmp(word, "late")) late = true;
        else good = add_actor(copy, &slots, late);
        if (!good) {
            fprintf(stderr, "not understood: %s\n", word);
            return 2;
        }
    }
    if (!begin_with(&start, begin, pinned)) {
        fprintf(stderr, "no such start: %s\n", begin);
        return 2;
    }
    state_size = present[BACKUP] ? sizeof(State) : offsetof(State, backup);
    int result = walks ? wander(&start, walks, seed, &depth, &steps) : search(&start, limit, &depth, &steps);
    if (result != 1)
        printf("%s %zu %s %llu steps depth %d\n", result ? "LIMIT" : "OK", seen, walks ? "walks" : "states",
               (unsigned long long)steps, depth);
    return result;
}
