"""Places that images come from and go to. Reading yields an `Archive` (see contents.py), writing begins with a plan.

archive.py         what an archive file holds: members by name, read in place or as they go by
tar.py             headers of that outer tar, both ways
docker_archive.py  `docker save` of every age; legacy.py: the layout of docker 1.8 and `--format legacy`
oci_layout.py      OCI layouts, as a tar or a folder
writing.py         a plan of members → bytes
"""
