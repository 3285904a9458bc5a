//! The files of one log as one stream of lines, while the youngest is written and rotated.

use crate::supervisor::log::older;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is read at once when looking for the tail.
const BLOCK: u64 = 64 * 1024;

/// Files from the oldest to the youngest, and where we are in them.
#[derive(Debug)]
pub(super) struct Chain {
    path: PathBuf,
    files_max: u32,
    /// The file we are in, first, and those after it.
    files: Vec<Link>,
    line: Vec<u8>,
}

#[derive(Debug)]
struct Link {
    reader: BufReader<File>,
    inode: u64,
}

impl Chain {
    /// All files of a log; none is no error.
    pub(super) fn open(path: &Path, files_max: u32) -> Result<Chain> {
        let files = younger_than(path, files_max, None)?;
        Ok(Chain { path: path.to_owned(), files_max, files, line: Vec::new() })
    }

    /// The next whole line, without its end; `None`: there is none yet.
    pub(super) fn next_line(&mut self) -> Result<Option<&[u8]>> {
        if self.line.last() == Some(&b'\n') {
            self.line.clear();
        }
        loop {
            let alone = self.files.len() == 1;
            let Some(link) = self.files.first_mut() else {
                self.files = younger_than(&self.path, self.files_max, None)?;
                if self.files.is_empty() {
                    return Ok(None);
                }
                continue;
            };
            // A line that is being written is left where it is until its end is there.
            link.reader.read_until(b'\n', &mut self.line).context("read the log")?;
            if self.line.last() == Some(&b'\n') {
                return Ok(Some(&self.line[..self.line.len() - 1]));
            }
            if alone {
                let inode = link.inode;
                let younger = younger_than(&self.path, self.files_max, Some(inode))?;
                if younger.is_empty() {
                    return Ok(None);
                }
                self.files.extend(younger);
                // It was renamed after our last look, so it may have grown until then: read it to its end once more.
                continue;
            }
            // Complete: nobody writes to it any more. What has no end there never gets one.
            self.line.clear();
            self.files.remove(0);
        }
    }

    /// Go to where so many whole lines are left.
    pub(super) fn seek_tail(&mut self, lines: u64, is_whole: impl Fn(&[u8]) -> bool) -> Result<()> {
        // One that ends in a part has a line more, which has no end yet.
        let mut left = lines;
        let mut youngest = true;
        for index in (0..self.files.len()).rev() {
            let file = self.files[index].reader.get_mut();
            if let Some(offset) = find_tail(file, &mut left, youngest, &is_whole)? {
                self.files[index].reader.seek(SeekFrom::Start(offset))?;
                self.files.drain(..index);
                return Ok(());
            }
            self.files[index].reader.seek(SeekFrom::Start(0))?;
            youngest = false;
        }
        Ok(())
    }
}

/// The offset after the line that comes before the last `left` ones; `None`: the file has fewer, `left` is what is
/// still wanted.
fn find_tail(
    file: &mut File,
    left: &mut u64,
    youngest: bool,
    is_whole: &impl Fn(&[u8]) -> bool,
) -> Result<Option<u64>> {
    let mut start = file.seek(SeekFrom::End(0))?;
    let mut tail: Vec<u8> = Vec::new();
    let mut last = youngest;
    while start > 0 {
        let length = BLOCK.min(start);
        start -= length;
        let mut block = vec![0; length as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block).context("read the log")?;
        block.extend_from_slice(&tail);
        // Whole lines of the block, from the last; what is before the first newline belongs to the block before.
        let mut end = block.len();
        while let Some(newline) = block[..end].iter().rposition(|byte| *byte == b'\n') {
            let begin = match block[..newline].iter().rposition(|byte| *byte == b'\n') {
                Some(before) => before + 1,
                None if start == 0 => 0,
                None => break,
            };
            let whole = is_whole(&block[begin..newline]);
            if last && !whole && *left > 0 {
                *left -= 1;
            }
            last = false;
            if whole {
                if *left == 0 {
                    return Ok(Some(start + newline as u64 + 1));
                }
                *left -= 1;
            }
            end = begin;
        }
        tail = block[..end].to_vec();
    }
    Ok(None)
}

/// The files after this one, from old to young; all of them, if it is not among them.
fn younger_than(path: &Path, files_max: u32, inode: Option<u64>) -> Result<Vec<Link>> {
    let mut links: Vec<Link> = Vec::new();
    // From the youngest: a rotation in between shows a file twice, never skips one.
    for number in 0..files_max.max(1) {
        let name = if number == 0 { path.to_owned() } else { older(path, number) };
        let file = match File::open(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("open {}", name.display())),
        };
        let found = file.metadata()?.ino();
        if inode == Some(found) {
            break;
        }
        if links.iter().all(|link| link.inode != found) {
            links.push(Link { reader: BufReader::with_capacity(BLOCK as usize, file), inode: found });
        }
    }
    links.reverse();
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(chain: &mut Chain) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = chain.next_line().unwrap() {
            lines.push(String::from_utf8(line.to_vec()).unwrap());
        }
        lines
    }

    #[test]
    fn across_rotations_and_torn_writes() {
        let directory = std::env::temp_dir().join(format!("coracle-chain-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("ctr.log");
        let write = |path: &Path, text: &str| {
            use std::io::Write;
            File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
        };
        let mut chain = Chain::open(&path, 3).unwrap();
        assert!(all(&mut chain).is_empty());
        write(&path, "1\n2\n3");
        assert_eq!(all(&mut chain), ["1", "2"]);
        write(&path, "3\n4\n");
        std::fs::rename(&path, older(&path, 1)).unwrap();
        write(&path, "5\n");
        std::fs::rename(older(&path, 1), older(&path, 2)).unwrap();
        std::fs::rename(&path, older(&path, 1)).unwrap();
        write(&path, "6\n");
        assert_eq!(all(&mut chain), ["33", "4", "5", "6"]);
        write(&path, "7\n");
        assert_eq!(all(&mut chain), ["7"]);
        for (lines, expected) in [(0, &[][..]), (1, &["7"]), (3, &["5", "6", "7"]), (5, &["33", "4", "5", "6", "7"])] {
            let mut chain = Chain::open(&path, 3).unwrap();
            chain.seek_tail(lines, |_| true).unwrap();
            assert_eq!(all(&mut chain), expected, "{lines}");
        }
        let mut chain = Chain::open(&path, 3).unwrap();
        chain.seek_tail(100, |_| true).unwrap();
        assert_eq!(all(&mut chain), ["1", "2", "33", "4", "5", "6", "7"]);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_tail_counts_whole_lines() {
        let path = std::env::temp_dir().join(format!("coracle-tail-{}", std::process::id()));
        // Capital letters are whole lines, small ones parts.
        std::fs::write(&path, "A\nb\nB\nc\nd\n").unwrap();
        for (lines, expected) in [(1, &["c", "d"][..]), (2, &["b", "B", "c", "d"])] {
            let mut chain = Chain::open(&path, 1).unwrap();
            chain.seek_tail(lines, |line| line[0].is_ascii_uppercase()).unwrap();
            assert_eq!(all(&mut chain), expected, "{lines}");
        }
        std::fs::write(&path, format!("{}\n", "x".repeat(1000)).repeat(1000)).unwrap();
        let mut chain = Chain::open(&path, 1).unwrap();
        chain.seek_tail(500, |line| line.len() == 1000).unwrap();
        assert_eq!(all(&mut chain).len(), 500);
        std::fs::remove_file(&path).unwrap();
    }
}
