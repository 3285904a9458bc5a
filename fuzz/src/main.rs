//! The loop for a stable compiler: seeds of `corpus/NAME/` changed at random, from a fixed seed, for so many rounds.
//!
//! `loop NAME ROUNDS [SEED]`. An input that breaks its target is written to `found/NAME-SEED-ROUND`, and the loop fails.

use coracle_fuzz::TARGETS;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

/// Longest input.
const INPUT_MAX: usize = 64 << 10;

/// Words that parsers look for.
const TOKENS: &[&[u8]] = &[
    b"sha256:",
    b"@",
    b":",
    b"/",
    b"..",
    b"//",
    b"localhost",
    b"\0",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b"null",
    b"-1",
    b"1e400",
    b"18446744073709551616",
    b"\\u0000",
    b"manifests",
    b"layers",
    b"config",
    b"mediaType",
    b"digest",
    b"size",
    b"ustar\0",
    b"00000000000\0",
    b"77777777777\0",
    b"\x80\0\0\0\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"12 path=a\n",
    b"GNU.sparse",
];

/// xorshift64*: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let name = words.first().map(String::as_str).unwrap_or_default();
    let Some((name, target)) = TARGETS.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("usage: loop NAME ROUNDS [SEED]; NAME is one of {}", names.join(", "));
        return ExitCode::from(2);
    };
    let rounds: u64 = words.get(1).and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let seed: u64 = words.get(2).and_then(|text| text.parse().ok()).unwrap_or(1);
    let corpus = corpus(name);
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    for input in &corpus {
        target(input);
    }
    for round in 0..rounds {
        let input = mutate(&corpus, &mut random);
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            let path = PathBuf::from("found").join(format!("{name}-{seed}-{round}"));
            std::fs::create_dir_all("found").and_then(|()| std::fs::write(&path, &input)).expect("keep the input");
            eprintln!("{name}: broken by {}", path.display());
            return ExitCode::FAILURE;
        }
    }
    println!("{name}: {rounds} rounds from seed {seed}, {} seeds: nothing found", corpus.len());
    ExitCode::SUCCESS
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = PathBuf::from("corpus").join(name);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut found: Vec<Vec<u8>> = paths.iter().filter_map(|path| std::fs::read(path).ok()).collect();
    found.push(Vec::new());
    found
}

fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        match random.below(8) {
            0 if !bytes.is_empty() => {
                let index = at.min(bytes.len() - 1);
                bytes[index] ^= 1 << random.below(8);
            }
            1 if !bytes.is_empty() => {
                let index = at.min(bytes.len() - 1);
                bytes[index] = [0, 1, 0x7F, 0x80, 0xFF, b'0', b'9', b'/'][random.below(8)];
            }
            2 => drop(bytes.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
            3 => {
                let end = (at + random.below(32)).min(bytes.len());
                drop(bytes.drain(at..end));
            }
            4 => bytes.truncate(at),
            5 => {
                let end = (at + random.below(512)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                drop(bytes.splice(to..to, part));
            }
            6 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let token = TOKENS[random.below(TOKENS.len())];
                let end = (at + token.len()).min(bytes.len());
                drop(bytes.splice(at..end, token.iter().copied()));
            }
        }
    }
    bytes.truncate(INPUT_MAX);
    bytes
}
