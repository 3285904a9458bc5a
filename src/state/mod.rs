//! The records on disk. This text is the specification of the format (DESIGN: one writer a file, alive is a lock).
#![forbid(unsafe_code)]
