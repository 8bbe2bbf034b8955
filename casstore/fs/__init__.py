"""Files inside images, for whatever opens files through fsspec: pandas, pyarrow, dask, …

    pandas.read_csv("casstore://app:v1/srv/data.csv", storage_options={"store": "/srv/images"})

Needs `casstore[fsspec]`. Nothing is unpacked: a file is read where it lies, from any offset.
"""

from __future__ import annotations

from .filesystem import CasstoreFile, CasstoreFileSystem

__all__ = ["CasstoreFile", "CasstoreFileSystem"]
