//! One slot of the seed's file. Pure. See docs/seed-format.md.

use super::number::Seed;

/// Bytes in a slot: the longest seed with its header, rounded up to whole pages.
pub(super) const SLOT_LEN: usize = 8 * 1024;

/// Slots in the file, written in turn.
pub(super) const SLOTS: usize = 2;

const MAGIC: &[u8] = b"instance-agent seed v1 sequence ";
const SEQUENCE_DIGITS: usize = 20;
const BEFORE_CHECKSUM: &[u8] = b" crc32 ";
const CHECKSUM_DIGITS: usize = 8;
const CHECKSUM_AT: usize = MAGIC.len() + SEQUENCE_DIGITS + BEFORE_CHECKSUM.len();
const NUMBER_AT: usize = CHECKSUM_AT + CHECKSUM_DIGITS + 1;

/// Far more writes than a disk survives. A larger number in the file is damage, and below it the next number
/// always exists.
const LAST_SEQUENCE: u64 = u64::MAX / 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Of two good slots, the one with the higher number counts.
    pub(super) sequence: u64,
    /// The stored integer.
    pub(super) seed: Seed,
}

impl Slot {
    /// The slot's bytes, always [`SLOT_LEN`] of them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SLOT_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(format!("{:0SEQUENCE_DIGITS$}", self.sequence).as_bytes());
        bytes.extend_from_slice(BEFORE_CHECKSUM);
        bytes.extend_from_slice(&[b'0'; CHECKSUM_DIGITS]);
        bytes.push(b'\n');
        bytes.extend_from_slice(self.seed.as_bytes());
        bytes.push(b'\n');
        bytes.resize(SLOT_LEN - 1, b' ');
        bytes.push(b'\n');
        // Over the whole slot, padding included, with the field itself as zeros.
        let checksum = format!("{:0CHECKSUM_DIGITS$x}", crc32fast::hash(&bytes));
        bytes[CHECKSUM_AT..NUMBER_AT - 1].copy_from_slice(checksum.as_bytes());
        bytes
    }

    /// Reads a slot back; `None` if any byte of it is not as [`Slot::encode`] wrote it.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let sequence = bytes.strip_prefix(MAGIC)?.get(..SEQUENCE_DIGITS)?;
        let sequence = std::str::from_utf8(sequence).ok()?.parse().ok().filter(|n| *n <= LAST_SEQUENCE)?;
        let number = bytes.get(NUMBER_AT..)?.split(|b| *b == b'\n').next()?;
        let slot = Self { sequence, seed: Seed::from_canonical(number)? };
        // Encoding it again and comparing checks every byte: fields, checksum and padding.
        (slot.encode() == bytes).then_some(slot)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::super::number::MAX_DIGITS;
    use super::*;

    fn slot(sequence: u64, number: &str) -> Slot {
        Slot { sequence, seed: Seed::from_canonical(number.as_bytes()).unwrap() }
    }

    /// The format is a promise to files already on disks.
    #[test]
    fn the_format_does_not_change() {
        let bytes = slot(7, "100").encode();
        let (text, padding) = bytes.split_at(72);
        assert_eq!(
            std::str::from_utf8(text).unwrap(),
            "instance-agent seed v1 sequence 00000000000000000007 crc32 22ee6061\n100\n"
        );
        assert!(padding[..padding.len() - 1].iter().all(|b| *b == b' '));
        assert_eq!(padding.last(), Some(&b'\n'));
        assert_eq!(bytes.len(), SLOT_LEN);
    }

    #[test]
    fn what_is_written_reads_back() {
        for written in [
            slot(0, "0"),
            slot(1, "-5"),
            slot(LAST_SEQUENCE, &"9".repeat(MAX_DIGITS)),
            slot(3, &format!("-{}", "8".repeat(MAX_DIGITS))),
        ] {
            assert_eq!(Slot::decode(&written.encode()), Some(written));
        }
    }

    #[test]
    fn any_changed_byte_is_damage() {
        let good = slot(7, "100").encode();
        for at in 0..SLOT_LEN {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(Slot::decode(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn other_lengths_and_numbers_out_of_range_are_damage() {
        let good = slot(7, "100").encode();
        assert_eq!(Slot::decode(&[]), None);
        assert_eq!(Slot::decode(&good[..SLOT_LEN - 1]), None);
        assert_eq!(Slot::decode(&[&good[..], b" "].concat()), None);
        assert_eq!(Slot::decode(&[0; SLOT_LEN]), None);
        assert_eq!(Slot::decode(&slot(LAST_SEQUENCE + 1, "1").encode()), None);
    }
}
