"""Pure functions on buffers: no files, nothing remembered but what a caller holds.

- `tarscan`: which bytes of a tar stream are payloads, and its entries.
- `cut`: where payloads are cut into chunks, by their content.
- `hashing`: digests of streams and of many spans in one pass.
- `table`: digests looked up by the thousand, in sorted tables and in memory.
- `spans`: many pieces copied or compared in one call.

Each is three modules: NAME, which callers import; `_NAME_py`, the pure-Python twin that says what is right;
`_NAME_c`, compiled from `_native/` and taken where it was built. `NAME.IMPLEMENTATION` tells which it is. The
compiled ones release the GIL while they work and are crossed per batch, never per chunk.
"""
