/* The store's protocol as a finite machine: universe, state, rules. README.md has the words and the reasons.

   A store of at most four blobs and twenty objects, at most four processes with a lease, some without, a collector
   that may do any allowed thing at any time. Every function works on one State; nothing is hidden elsewhere. */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool bit(unsigned mask, int i) { return mask >> i & 1; }

/* Slot 0 owns what the store holds at the start, slots 1..4 belong to the processes with a lease, one each. A process
   makes at most one object of each kind, so (kind, slot) is a key that is never used twice. */
enum { SLOTS = 5 };
enum { LOOSE, DATA, META, SEGMENT, KINDS };
enum { OBJECTS = KINDS * SLOTS };
#define OBJECT(kind, slot) ((kind) * SLOTS + (slot))
#define KIND(o) ((o) / SLOTS)
#define SLOT(o) ((o) % SLOTS)

/* Two layers and two manifests. X's layer is B; Y's layer is set by the run. There are two chunks, 0 and 1. */
enum { B, C, X, Y, BLOBS, LAYERS = 2 };
enum { CHUNKS = 2, ALL_CHUNKS = 3 };

enum { NONE, PENDING, LIVE, RETIRED, DELETING };     /* states of a row */
enum { ABSENT, STAGED, RENAMED, DURABLE, UNLINKED }; /* a file: RENAMED = a power loss may still undo the rename,
                                                        UNLINKED = a power loss may still undo the unlink */
enum { UNPINNED, WISH, PROMISE };                    /* a pin of an absent digest is a wish */

typedef struct {
    uint32_t suspect;                /* objects found rotten or missing, a bit each */
    uint32_t turned;                 /* objects that said `deleting` when the epoch was last changed */
    uint32_t named_objects[SLOTS];   /* lease -> objects */
    uint16_t uses[LAYERS];           /* edges to data packs: two bits a slot, the chunks that the layer takes from it */
    uint8_t state[OBJECTS];
    uint8_t older[OBJECTS];          /* of a retired object: the leases still there that were open at the retirement */
    uint8_t blob[BLOBS];             /* state of the blob's row */
    uint8_t blob_older[BLOBS];
    uint8_t place[BLOBS];            /* 1 + its loose object or the metadata pack that holds its record; 0 = none */
    uint8_t named_blobs[SLOTS];
    uint8_t pin[LAYERS];
    uint8_t tags;                    /* bit 0: a tag on X, bit 1: a tag on Y */
    uint8_t leases, expired;         /* rows; `expired` only where rule 1 is off */
    uint8_t mismatch;                /* the catalog's epoch is not the store's: it came from a backup */
    uint8_t behind;                  /* names or files tell of a later state: it came from a backup, whatever its epoch */
    uint8_t plan;                    /* the collector's stale plan; only where that rule is off */
} Catalog;

typedef struct {
    uint16_t holds[OBJECTS]; /* data pack: chunks. metadata pack: two bits a blob, a layer's chunks, a manifest 1.
                                segment: two bits a data pack. */
    uint8_t file[OBJECTS];
    uint8_t rot[OBJECTS];    /* data pack: chunks gone bad. metadata pack: a bit a blob. others: 1 */
    uint8_t folders;         /* tmp/<lease>/ */
} Disk;

/* Actors 1..4 are the processes with a lease, in their slots. */
enum { CAT = SLOTS, TAGGER, PINNER, DECAY, ALARM, BACKUP, ACTORS };
enum { DONE = 30, FAILED = 31 };

typedef struct {
    uint32_t v[ACTORS], u[ACTORS]; /* what an actor remembers */
    uint32_t keepers;              /* ghost: files of the catalog that a restore replaced, needed until check */
    uint8_t pc[ACTORS];
    uint8_t known;                 /* ghost. bit 0: B was reachable ever since CAT began; bit 7: rot was found */
    uint8_t turned;                /* ghost: the epoch was changed since the backup was taken */
    uint8_t restored;              /* 1 a backup came back, 2 one of an older epoch */
    uint8_t names, pins;           /* the copy of the names of the catalog that a restore replaced: tags, layers */
    uint8_t promised;              /* ghost: the blobs that were reachable and sound in it */
    uint8_t moves;                 /* which of the one-time moves of tagger and pinner are made */
} Actors;

typedef struct {
    Catalog c;
    Disk d;
    Actors a;
    Catalog backup; /* last: left out of memory and hash where no backup is in the run */
} State;

/* What one run switches off, by name (without=NAME). The first fifteen are PROTOCOL.md's, in its order. */
#define RULES(R)                                                                                                        \
    R(expired_protects) R(name_in_txn) R(tag_live) R(no_live_parent) R(revive_closure) R(drop_by_key)                   \
    R(repack_per_blob) R(merge_multimap) R(merge_keeps_retired) R(merge_cas) R(edge_packs_only) R(lease_folder)         \
    R(unlink_sync) R(only_used_live) R(stamp_in_commit)                                                                 \
    /* of the table, beyond the fifteen */                                                                              \
    R(commit_fence) R(plan_rechecked) R(pack_cas) R(names) R(age) R(folder_first) R(put_sync) R(put_row_first)          \
    R(purge_no_row) R(retire_loose) R(pin_live) R(pin_holds)                                                                          \
    /* metadata packs, repack */                                                                                        \
    R(meta_cas) R(meta_per_blob) R(meta_revived) R(repack_current_uses)                                                 \
    /* rot and healing */                                                                                               \
    R(suspect_missing) R(suspect_at_commit) R(heal_in_commit) R(repack_verifies)                                        \
    /* index rebuild, epoch */                                                                                          \
    R(rebuild_one_txn) R(rebuild_keeps_retired) R(rebuild_cas) R(suspect_segment_stays) R(epoch_turns) R(epoch_gc)    \
    R(epoch_name) R(check_before_epoch)                                                                                 \
    /* what check takes in where the catalog was set back (`takein`) */                                                 \
    R(look_first) R(take_unknown) R(take_pending) R(take_killed) R(take_retired) R(take_names)

#define NAME(r) r,
enum { RULES(NAME) RULE_COUNT };
#undef NAME
extern bool rule[RULE_COUNT];

/* Who may take a slot. */
typedef enum { NOBODY, WRITER, PACKER, REPACKER, METAREPACKER, MERGER, REBUILDER, READER } Role;

/* What a slot does. */
typedef struct {
    Role role;
    int layer, manifest; /* manifest -1: `blob put`, which pins */
    bool packed;         /* else loose */
    bool pipe;           /* its digest is unknown until the end */
    bool two;            /* commits the layer first, then manifest and tag */
    bool late;           /* starts only after a restore */
    int needs;           /* chunks of its recipe */
    int from;            /* repacker: slot of the source */
} Job;

extern Job job[SLOTS];
extern int child[BLOBS];       /* layer of a manifest */
extern bool present[ACTORS];   /* which actors take part */
extern uint32_t decay_targets, alarm_target;
extern bool bytes_only;        /* only lost bytes count, not rows in a wrong state */
extern bool takein;            /* check takes in what a catalog that was set back does not know, or takes for garbage */
extern bool fine;              /* unlink and drop object by object, in two steps */

/* -- explore.c */
void violation(const char *format, ...);
bool violated(void);
void emit(const State *next, int action, const char *text);

/* -- transactions.c: the rows of PROTOCOL.md */
bool has_lease(const State *s, int lease);
uint8_t open_leases(const State *s);
void lease_open(State *s, int lease);
void lease_end(State *s, int lease);
bool sees_object(const State *s, int object, int lease);
bool sees_blob(const State *s, int blob, int lease);
bool damaged(const State *s, int blob);
void name_object(State *s, int lease, int object);
void name_blob(State *s, int lease, int blob);
bool referred(const State *s, int object, bool by_retired_too);
void make_live(State *s, int object);
void blob_live(State *s, int blob);
void revive(State *s, int blob);
void retire_object(State *s, int object);
void put_begin(State *s, int lease, int kind, unsigned holds);
bool put_create(State *s, int lease);
bool put_rename(State *s, int lease);
unsigned entries(int slot, unsigned chunks);
unsigned live_segments(const State *s);
unsigned lookup(State *s, int lease, unsigned chunks, unsigned *missing);
bool tagged(const State *s, int manifest);
enum { RETIRE_BLOB, RETIRE_OBJECT, PURGE_BLOB, PURGE_OBJECT, ORPHANS, TURN, DELETE, UNLINK, DROP, TMP, COLLECTOR_MOVES };
extern const int move_range[COLLECTOR_MOVES];
bool collect(State *s, int move, int i);
void check_mark(State *s);
void set_back(State *s, const State *lost);
void check_epoch(State *s);

/* -- actors.c */
void act(const State *s, int actor);

/* -- invariants.c */
bool on_disk(const State *s, int object);
bool readable(const State *s, int blob, bool strictly);
bool reachable(const State *s, int blob);
unsigned sound(const State *s);
void check_state(const State *s, const char *when);
void check_recovery(const State *s);
void check_promised(const State *s, const char *when);
uint32_t needed_files(const State *s);
extern char why[160]; /* what the last unreadable blob lacked */

/* -- names for traces */
extern const char *const kind_letter, *const blob_letter;

#endif
