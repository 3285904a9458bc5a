//! What the kernel shows, from inside and outside.

mod filter;
mod pty;
mod signals;
