//! The records on disk; this text is the specification of the format.
//!
//! ```text
//! DATA  /var/lib/coracle | $XDG_DATA_HOME/coracle          RUN  /run/coracle | $XDG_RUNTIME_DIR/coracle (empty after boot)
//!   format            "1\n": newer -> refused with a hint     containers/ID/alive             lock held by the supervisor
//!   lock              shared by all, exclusive by prune       containers/ID/status.json       written by the supervisor only
//!   tmp/              staging, same file system               containers/ID/attachments.json  what must be released
//!   blobs/sha256/HEX  immutable                               containers/ID/control.sock      the supervisor's ear
//!   layers-v1/HEX/{diff,layer.json,split}  immutable          networks/NAME/members/ID.json
//!   skeleton-v1/      empty places to mount over; made again when it is not there
//!   images/ID.json    what an image consists of
//!   tags/ESCAPED-REF  -> ../images/ID.json
//!   containers/ID/{config.json, exit.json, upper, work, log, dependents/ID}
//!   names/NAME -> ../containers/ID
//!   networks/NAME/{network.json, leases/IP -> ID}  volumes/NAME/{volume.json,_data}  events/DAY.jsonl
//! ```
//!
//! 1. One writer a file. `config.json`: the engine under the container's lock; `status.json`, `exit.json`: its supervisor.
//! 2. Alive is a lock, not a pid: who can lock `alive` knows that nobody supervises.
//! 3. Three write primitives, in [`file`]; nothing else opens for writing.
//! 4. Whole or absent: directories are made in `tmp/` and renamed in; removal renames to `tmp/` first.
//! 5. Unique names and leases are links: EEXIST is "taken". There is no index file.
//! 6. Lock order: store < pod < container (by id) < network < volume < image; debug builds assert it.
//! 7. Every document has a `version`; readers ignore fields they do not know.
//! 8. What no record reaches is garbage, and `prune` and `system df` see it.
#![forbid(unsafe_code)]

pub mod container;
pub mod event;
pub mod file;
pub mod layout;
pub mod lock;
pub mod name;
pub mod network;
pub mod version;
