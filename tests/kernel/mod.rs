//! What the kernel shows, from inside and outside.

mod cost;
mod filter;
mod pty;
mod signals;
