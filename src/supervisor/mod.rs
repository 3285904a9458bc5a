//! One small process per running container: the only one that acquires and releases.
#![forbid(unsafe_code)]
