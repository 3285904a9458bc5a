//! DNS messages: as much of them as a name server for containers reads and writes (RFC 1035, 6891). Pure.
//!
//! Nothing here trusts a length or a pointer of the message; what cannot be read is refused, never guessed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of the header.
pub const HEADER: usize = 12;
/// The largest answer over UDP that we send or ask for, whatever the client offers: it fits any path unfragmented.
pub const MAXIMUM_UDP: usize = 1232;

/// Record types.
pub const A: u16 = 1;
/// A name for an address.
pub const PTR: u16 = 12;
/// IPv6 address.
pub const AAAA: u16 = 28;
/// All records.
pub const ANY: u16 = 255;
const OPT: u16 = 41;
const IN: u16 = 1;

/// Result codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Fine.
    NoError = 0,
    /// Cannot be read.
    Malformed = 1,
    /// Upstream does not answer.
    ServerFailure = 2,
    /// There is no such name.
    NoSuchName = 3,
    /// Not a query.
    NotImplemented = 4,
    /// Somebody else's business.
    Refused = 5,
}

/// A query that asks one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Identification.
    pub id: u16,
    /// Lower case, without the final dot; bytes that are no host name's are kept as they are, lossily.
    pub name: String,
    /// What is asked for.
    pub kind: u16,
    /// Class 1 is the internet.
    pub internet: bool,
    /// Recursion desired, to be repeated in the answer.
    pub recursion: bool,
    /// The question as it came, to be repeated in the answer.
    pub question: Vec<u8>,
    /// The client's UDP size, if it speaks EDNS.
    pub edns: Option<u16>,
}

/// Read a query. An error is the code to answer with, or `None` where no answer is due (an answer, a fragment).
pub fn parse(message: &[u8]) -> Result<Query, Option<Code>> {
    let header = message.get(..HEADER).ok_or(None)?;
    if header[2] & 0x80 != 0 {
        return Err(None);
    }
    if header[2] & 0x78 != 0 {
        return Err(Some(Code::NotImplemented));
    }
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if count(4) != 1 {
        return Err(Some(Code::Malformed));
    }
    let (name, end) = read_name(message, HEADER).ok_or(Some(Code::Malformed))?;
    let fixed = message.get(end..end + 4).ok_or(Some(Code::Malformed))?;
    let edns = find_edns(message, end + 4, count(6).into(), count(8).into(), count(10).into());
    Ok(Query {
        id: count(0),
        name,
        kind: u16::from_be_bytes([fixed[0], fixed[1]]),
        internet: u16::from_be_bytes([fixed[2], fixed[3]]) == IN,
        recursion: header[2] & 1 != 0,
        question: message[HEADER..end + 4].to_vec(),
        edns,
    })
}

/// A name at this place and where it ends. Questions are never compressed by anybody; pointers are refused.
fn read_name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = Vec::new();
    let start = at;
    loop {
        let length = usize::from(*message.get(at)?);
        if length == 0 {
            return Some((String::from_utf8_lossy(&name).into_owned(), at + 1));
        }
        if length > 63 || at + length - start > 254 {
            return None;
        }
        let label = message.get(at + 1..at + 1 + length)?;
        if !name.is_empty() {
            name.push(b'.');
        }
        // A dot inside a label would read as two labels.
        name.extend(label.iter().map(|byte| if *byte == b'.' { b'?' } else { byte.to_ascii_lowercase() }));
        at += 1 + length;
    }
}

/// Where a possibly compressed name ends.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + length,
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// The OPT record among the additional ones.
fn find_edns(message: &[u8], mut at: usize, answers: usize, authority: usize, additional: usize) -> Option<u16> {
    for index in 0..answers + authority + additional {
        at = skip_name(message, at)?;
        let fixed = message.get(at..at + 10)?;
        if index >= answers + authority && u16::from_be_bytes([fixed[0], fixed[1]]) == OPT {
            return Some(u16::from_be_bytes([fixed[2], fixed[3]]));
        }
        at += 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    }
    None
}

/// What an answer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An address.
    Address(IpAddr),
    /// A name.
    Name(String),
}

/// Write an answer of at most `limit` bytes; what does not fit sets the truncation bit.
pub fn answer(query: &Query, code: Code, authoritative: bool, records: &[Data], limit: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + query.question.len() + records.len() * 28 + 11);
    message.extend(query.id.to_be_bytes());
    let authority = if authoritative { 0x04 } else { 0 };
    message.push(0x80 | authority | u8::from(query.recursion));
    message.push(0x80 | code as u8);
    message.extend([0, 1, 0, 0, 0, 0, 0, u8::from(query.edns.is_some())]);
    message.extend(&query.question);
    let room = limit - if query.edns.is_some() { 11 } else { 0 };
    let mut count = 0u16;
    for record in records {
        let before = message.len();
        put_record(&mut message, record);
        if message.len() > room {
            message.truncate(before);
            message[2] |= 0x02;
            break;
        }
        count += 1;
    }
    message[6..8].copy_from_slice(&count.to_be_bytes());
    if query.edns.is_some() {
        message.push(0);
        message.extend(OPT.to_be_bytes());
        message.extend((MAXIMUM_UDP as u16).to_be_bytes());
        message.extend([0; 6]);
    }
    message
}

/// The answer to a message whose question cannot be read: its header with a code.
pub fn refusal(message: &[u8], code: Code) -> Vec<u8> {
    let mut answer = message[..HEADER].to_vec();
    answer[2] = 0x80 | answer[2] & 0x79;
    answer[3] = 0x80 | code as u8;
    answer[4..].fill(0);
    answer
}

/// How long an answer may be kept: containers come and go.
const TTL_S: u32 = 1;

fn put_record(message: &mut Vec<u8>, record: &Data) {
    // The name is the question's, at offset 12.
    message.extend([0xc0, HEADER as u8]);
    let (kind, data) = match record {
        Data::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
        Data::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
        Data::Name(name) => (PTR, encode_name(name)),
    };
    message.extend(kind.to_be_bytes());
    message.extend(IN.to_be_bytes());
    message.extend(TTL_S.to_be_bytes());
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
}

/// A name as labels; labels that are too long are cut.
pub fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        bytes.push(label.len() as u8);
        bytes.extend(label);
    }
    bytes.push(0);
    bytes
}

/// The address that a name under `in-addr.arpa` or `ip6.arpa` stands for.
pub fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0u8; 4];
        let mut parts = digits.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let mut number = 0u128;
    let mut count = 0;
    for digit in digits.rsplit('.') {
        if digit.len() != 1 || count == 32 {
            return None;
        }
        number = number << 4 | u128::from(u8::from_str_radix(digit, 16).ok()?);
        count += 1;
    }
    (count == 32).then_some(IpAddr::V6(Ipv6Addr::from(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn query(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
        message.extend(encode_name(name));
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        if let Some(size) = edns {
            message.extend([0, 0, 41]);
            message.extend(size.to_be_bytes());
            message.extend([0; 6]);
        }
        message
    }

    #[test]
    fn reads_a_query() {
        let parsed = parse(&query("Web.Example", AAAA, Some(4096))).unwrap();
        assert_eq!((parsed.id, parsed.name.as_str(), parsed.kind), (0x1234, "web.example", AAAA));
        assert!(parsed.internet && parsed.recursion);
        assert_eq!(parsed.edns, Some(4096));
    }

    #[test]
    fn answers_and_truncates() {
        let parsed = parse(&query("web", A, None)).unwrap();
        let addresses: Vec<Data> = (0..100).map(|n| Data::Address(IpAddr::from([10, 0, 0, n]))).collect();
        let whole = answer(&parsed, Code::NoError, true, &addresses[..2], 512);
        assert_eq!(whole.len(), 12 + 9 + 2 * 16);
        assert_eq!(whole[2..8], [0x85, 0x80, 0, 1, 0, 2]);
        assert_eq!(whole[whole.len() - 4..], [10, 0, 0, 1]);
        let cut = answer(&parsed, Code::NoError, true, &addresses, 512);
        assert!(cut.len() <= 512 && cut[2] & 2 != 0);
        assert_eq!(usize::from(cut[7]), (cut.len() - 21) / 16);
    }

    #[test]
    fn what_is_no_query() {
        let good = query("web", A, None);
        assert_eq!(parse(&good[..11]), Err(None));
        let mut answer = good.clone();
        answer[2] |= 0x80;
        assert_eq!(parse(&answer), Err(None));
        let mut two = good.clone();
        two[5] = 2;
        assert_eq!(parse(&two), Err(Some(Code::Malformed)));
        let mut update = good.clone();
        update[2] = 5 << 3;
        assert_eq!(parse(&update), Err(Some(Code::NotImplemented)));
        let mut pointer = good.clone();
        pointer[12] = 0xc0;
        assert_eq!(parse(&pointer), Err(Some(Code::Malformed)));
        assert_eq!(parse(&good[..good.len() - 1]), Err(Some(Code::Malformed)));
    }

    #[test]
    fn reverse_names() {
        assert_eq!(reverse("2.0.89.10.in-addr.arpa"), Some(IpAddr::from([10, 89, 0, 2])));
        for name in
            ["2.89.10.in-addr.arpa", "1.2.0.89.10.in-addr.arpa", "256.0.89.10.in-addr.arpa", "web", "1.ip6.arpa"]
        {
            assert_eq!(reverse(name), None, "{name}");
        }
        let name = format!("1.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        assert_eq!(reverse(&name), Some("fd00::1".parse().unwrap()));
    }

    /// Any bytes are read or refused, in bounded time, without a panic.
    #[test]
    fn noise() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let good = query("a.b.c", ANY, Some(1232));
        for _ in 0..20_000 {
            let mut message = good.clone();
            for _ in 0..next() % 8 {
                let at = next() as usize % message.len();
                message[at] = next() as u8;
            }
            message.truncate(next() as usize % (message.len() + 1));
            match parse(&message) {
                Ok(query) => {
                    let record = Data::Name("x".repeat(300));
                    let bytes = answer(&query, Code::NoError, true, &[record], 512);
                    assert!(bytes.len() <= 512.max(HEADER + query.question.len() + 11));
                }
                Err(Some(code)) => assert_eq!(refusal(&message, code).len(), HEADER),
                Err(None) => {}
            }
        }
    }
}
