//! What the kernel shows, from inside and outside.

mod pty;
mod signals;
