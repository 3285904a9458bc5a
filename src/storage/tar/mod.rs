//! The tar format, read and written as a stream.
//!
//! Not the crate `tar`: the store must keep each byte that is not a file's content (to give a layer back exactly as it
//! came), bound each number a hostile archive can choose, and write content to a directory without a copy in between.
//! Both halves know ustar, PAX and GNU; nothing here touches the file system.

pub mod read;
pub mod write;

/// A tar block.
pub const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier entry.
    Link,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry, all extensions applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as the archive has it.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime_s: i64,
    /// And nanoseconds.
    pub mtime_ns: u32,
    /// Size of the file once written.
    pub size: u64,
    /// Bytes of content in the archive; less than `size` for sparse files.
    pub stored: u64,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Device numbers.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the stored bytes belong, for sparse files: offset and length.
    pub sparse: Option<Vec<(u64, u64)>>,
}

impl Default for Entry {
    fn default() -> Entry {
        Entry {
            path: Vec::new(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime_s: 0,
            mtime_ns: 0,
            size: 0,
            stored: 0,
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::read::{NoRaw, Raw, Reader};
    use super::*;
    use std::io::Write;

    fn round_trip(entry: &Entry, content: &[u8]) -> (Entry, Vec<u8>) {
        let mut writer = write::Writer::new(Vec::new());
        writer.file(entry, content).unwrap();
        let archive = writer.finish().unwrap();
        assert_eq!(archive.len() % BLOCK, 0);
        let mut reader = Reader::new(archive.as_slice(), NoRaw);
        let found = reader.next().unwrap().unwrap();
        let content = reader.content_within(1 << 20).unwrap();
        assert_eq!(reader.next().unwrap(), None);
        (found, content)
    }

    #[test]
    fn what_is_written_is_read() {
        let plain = Entry { path: b"a/b".to_vec(), mode: 0o4755, uid: 5, gid: 6, mtime_s: 7, ..Entry::default() };
        let long = "d/".repeat(120) + &"n".repeat(200);
        for entry in [
            plain.clone(),
            Entry { path: format!("{}/{}", "p".repeat(150), "n".repeat(99)).into_bytes(), ..plain.clone() },
            Entry { path: long.into_bytes(), ..plain.clone() },
            Entry { path: "grün".as_bytes().to_vec(), ..plain.clone() },
            Entry { uid: 3_000_000, gid: 4_000_000_000, ..plain.clone() },
            Entry { mtime_s: -2, mtime_ns: 500_000_000, ..plain.clone() },
            Entry { mtime_s: 1 << 40, mtime_ns: 1, ..plain.clone() },
            Entry { xattrs: vec![(b"user.a".to_vec(), b"x\n\0y".to_vec())], ..plain.clone() },
        ] {
            let (found, content) = round_trip(&entry, b"hello");
            assert_eq!(content, b"hello");
            assert_eq!(found, Entry { size: 5, stored: 5, ..entry });
        }
    }

    #[test]
    fn links_and_devices() {
        for kind in [Kind::Link, Kind::Symlink, Kind::Char, Kind::Block, Kind::Directory, Kind::Fifo] {
            let device = if matches!(kind, Kind::Char | Kind::Block) { (300, 70_000) } else { (0, 0) };
            let entry =
                Entry { path: b"x".to_vec(), kind, link: "t".repeat(150).into_bytes(), device, ..Entry::default() };
            assert_eq!(round_trip(&entry, b"").0, entry);
        }
    }

    struct Kept(Vec<u8>);

    impl Raw for Kept {
        fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }

    #[test]
    fn every_byte_comes_out_once() {
        let mut writer = write::Writer::new(Vec::new());
        for index in 0..20u32 {
            let path = format!("f{index}").repeat(index as usize + 1).into_bytes();
            let content = vec![b'a' + index as u8; index as usize * 100];
            writer.file(&Entry { path, ..Entry::default() }, &content).unwrap();
        }
        let mut archive = writer.finish().unwrap();
        archive.extend_from_slice(&[0; 5000]);
        let mut reader = Reader::new(std::io::BufReader::with_capacity(700, archive.as_slice()), Kept(Vec::new()));
        let mut again = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            again.append(&mut reader.sink.0);
            if entry.path.len() % 2 == 0 {
                again.extend(reader.content_within(1 << 20).unwrap());
            }
        }
        again.append(&mut reader.sink.0);
        assert!(again == archive);
    }

    #[test]
    fn nasty_archives_are_refused() {
        let check = |archive: &[u8], expected: &str| {
            let mut reader = Reader::new(archive, NoRaw);
            let error = loop {
                match reader.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("accepted: {expected}"),
                    Err(error) => break error,
                }
            };
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        };
        let archive = |entry: Entry, content: &[u8]| {
            let mut writer = write::Writer::new(Vec::new());
            writer.file(&entry, content).unwrap();
            writer.finish().unwrap()
        };
        let good = archive(Entry { path: b"a".to_vec(), ..Entry::default() }, b"content");
        check(&good[..515], "cut off in the middle of a file");
        check(&good[..300], "cut off in the middle of a header");
        let mut bad = good.clone();
        bad[0] ^= 1;
        check(&bad, "checksum");
        check(&[b'x'; 1024], "no tar archive");
        // A PAX header that claims to be huge.
        let huge = Entry { path: b"x".to_vec(), ..Entry::default() };
        let mut pax = archive(huge, b"");
        pax[156] = b'x';
        pax[124..136].copy_from_slice(b"77777777777\0");
        pax[148..156].fill(b' ');
        let sum: u32 = pax[..512].iter().map(|byte| u32::from(*byte)).sum();
        pax[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        check(&pax, "extended header of");
    }

    #[test]
    fn content_of_a_changing_file_keeps_its_promise() {
        let mut writer = write::Writer::new(Vec::new());
        let entry = Entry { path: b"a".to_vec(), stored: 10, ..Entry::default() };
        writer.entry(&entry).unwrap();
        writer.write_all(b"abc").unwrap();
        writer.entry(&entry).unwrap();
        writer.write_all(b"abcdefghijklmn").unwrap();
        let archive = writer.finish().unwrap();
        let mut reader = Reader::new(archive.as_slice(), NoRaw);
        reader.next().unwrap();
        assert_eq!(reader.content_within(100).unwrap(), b"abc\0\0\0\0\0\0\0");
        reader.next().unwrap();
        assert_eq!(reader.content_within(100).unwrap(), b"abcdefghij");
    }
}
