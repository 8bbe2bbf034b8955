"""Places that images come from and go to. Reading yields an `Archive` (contents.py), writing begins with a plan.

reading.py         any archive or folder → `Archive`, by what it holds
archive.py         files and folders read in place; stream.py: a pipe or a compressed file, as it goes by
members.py         names, links and limits inside an archive
tar.py             headers of that outer tar, both ways
docker_archive.py  `docker save` of every age; legacy.py: docker 1.8, and `--format legacy`
oci_layout.py      OCI layouts, as a tar or a folder
writing.py         a plan of members → bytes
download.py        one file by HTTP
http.py            connections, retries, redirects, limits: what all talk with registries goes through
watch.py           and nobody waits for ever
auth.py            challenges and tokens; credentials.py: docker's and podman's files, credential helpers
registry.py        a registry's manifests, tags, referrers
blob_download.py   blobs off the wire; blob_lanes.py: over several connections; blob_upload.py: and onto it
"""
