//! Packets as bytes: header views, in-place rewrite, checksums.
