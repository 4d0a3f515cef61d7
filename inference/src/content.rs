//! Names of files that follow from their bytes: SHA-256 and IPFS CIDv0.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// The largest file that IPFS stores as one chunk with its default settings, and so the largest
/// whose CIDv0 follows from its bytes without building a tree of chunks.
const IPFS_CHUNK_BYTES: usize = 262_144;

/// SHA-256 of a model file: the name under which a chain knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not 32 bytes of hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a content hash is 0x and 64 hex digits (the SHA-256 of the file)")]
pub struct BadContentHash;

impl FromStr for ContentHash {
    type Err = BadContentHash;

    fn from_str(text: &str) -> Result<Self, BadContentHash> {
        let digits = text.strip_prefix("0x").ok_or(BadContentHash)?;
        let mut hash = [0; 32];
        alloy_primitives::hex::decode_to_slice(digits, &mut hash).map_err(|_| BadContentHash)?;
        Ok(Self(hash))
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The IPFS CIDv0 (`Qm…`) of a file that fits one chunk; `None` for a larger one.
///
/// It is the base58 multihash of the dag-pb node that wraps the file as UnixFS data
/// (IPFS specifications, "UnixFS" and "CIDv0").
pub fn cid_v0(file: &[u8]) -> Option<String> {
    if file.len() > IPFS_CHUNK_BYTES {
        return None;
    }
    let mut unixfs = vec![0x08, 0x02]; // Type = File
    if !file.is_empty() {
        push_field(&mut unixfs, 0x12, file); // Data
    }
    unixfs.push(0x18); // filesize
    prost::encoding::encode_varint(file.len() as u64, &mut unixfs);
    let mut node = Vec::with_capacity(unixfs.len() + 8);
    push_field(&mut node, 0x0a, &unixfs); // PBNode.Data
    let mut multihash = vec![0x12, 0x20]; // sha2-256, 32 bytes
    multihash.extend_from_slice(&Sha256::digest(&node));
    Some(bs58::encode(multihash).into_string())
}

fn push_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    prost::encoding::encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cid_v0_equals_what_ipfs_add_prints() {
        assert_eq!(cid_v0(b"hello world\n").as_deref(), Some("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"));
        assert_eq!(cid_v0(b"").as_deref(), Some("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"));
        assert_eq!(cid_v0(&vec![0; IPFS_CHUNK_BYTES + 1]), None);
    }

    #[test]
    fn content_hash_text_round_trips_and_refuses_other_texts() {
        let hash = ContentHash::of(b"abc");
        assert_eq!(hash.to_string(), "0xba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for bad in ["", "0x", "ba7816bf", "0xzz", &hash.to_string()[..65]] {
            assert_eq!(bad.parse::<ContentHash>(), Err(BadContentHash), "{bad}");
        }
    }
}
