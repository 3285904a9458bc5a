//! Networks: links, addresses, rules, names, and rootless connectivity.
#![forbid(unsafe_code)]
