//! PURE: a container record and what is held for it, to the OCI spec.
#![forbid(unsafe_code)]
