"""The image model: references, media types, manifests, configs, platforms, and the IDs derived from them.

No I/O. Sources: OCI image-spec 1.1 (manifest.md, image-index.md, config.md), distribution/reference.
"""
