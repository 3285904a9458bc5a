//! As much of DER (X.690) as keys and certificates need: one value after another.

use anyhow::{Context, Result};

/// `SEQUENCE`.
pub const SEQUENCE: u8 = 0x30;
/// `OBJECT IDENTIFIER`.
pub const OBJECT_IDENTIFIER: u8 = 0x06;
/// `BIT STRING`.
pub const BIT_STRING: u8 = 0x03;
/// `INTEGER`.
pub const INTEGER: u8 = 0x02;
/// `UTCTime`.
pub const UTC_TIME: u8 = 0x17;
/// `GeneralizedTime`.
pub const GENERALIZED_TIME: u8 = 0x18;

/// The content of a value of this tag, and what follows it.
pub fn value(der: &[u8], tag: u8) -> Result<(&[u8], &[u8])> {
    let (found, content, rest) = any(der)?;
    (found == tag)
        .then_some((content, rest))
        .with_context(|| format!("a value of kind {found:#x} where {tag:#x} is due"))
}

/// The next value: its tag, its content, and what follows it.
pub fn any(der: &[u8]) -> Result<(u8, &[u8], &[u8])> {
    let read = || {
        let (&tag, rest) = der.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            0x81 => (usize::from(*rest.first()?), &rest[1..]),
            0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        Some((tag, content, rest))
    };
    read().context("it is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_values() {
        for der in [&[0x30][..], &[0x30, 0x82], &[0x30, 0x81], &[0x30, 5, 1], &[0x30, 0x84, 0, 0, 0, 1, 0], &[2, 1, 1]]
        {
            assert!(value(der, SEQUENCE).is_err(), "{der:?}");
        }
        assert_eq!(value(&[0x30, 1, 7, 9], SEQUENCE).unwrap(), (&[7][..], &[9][..]));
        let long = [&[0x30, 0x82, 1, 0][..], &[5; 256], &[9]].concat();
        assert_eq!(value(&long, SEQUENCE).unwrap(), (&[5; 256][..], &[9][..]));
    }
}
