//! How the moving of blobs is told to whoever watches. The telling itself (bars, lines) is the front end's.

/// Somebody who watches.
pub trait Progress: Sync {
    /// A line of its own.
    fn say(&self, text: &str);
    /// A blob begins. `total`: its length in bytes, where known.
    fn blob(&self, what: &str, total: Option<u64>) -> Box<dyn Meter>;
}

/// One blob under way.
pub trait Meter: Send + Sync {
    /// So many more bytes went through.
    fn add(&self, bytes: u64);
    /// So many bytes went through in all.
    fn set(&self, bytes: u64);
    /// Nothing more comes; `word`: "done", "skipped: already exists".
    fn finish(&self, word: &str);
}

/// Nobody watches.
pub struct Silent;

impl Progress for Silent {
    fn say(&self, _text: &str) {}

    fn blob(&self, _what: &str, _total: Option<u64>) -> Box<dyn Meter> {
        Box::new(Silent)
    }
}

impl Meter for Silent {
    fn add(&self, _bytes: u64) {}

    fn set(&self, _bytes: u64) {}

    fn finish(&self, _word: &str) {}
}
