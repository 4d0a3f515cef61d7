//! Names of files that follow from their bytes: SHA-256 and IPFS CIDs.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// The size of the chunks that IPFS cuts files into with its default settings.
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

/// Links of one node of IPFS's tree of chunks.
const IPFS_LINKS: usize = 174;

/// A node of the tree: its content hash, the bytes of the file below it, and the bytes of all nodes below it and its own.
struct DagNode {
    cid: Vec<u8>,
    file_bytes: u64,
    total_bytes: u64,
}

/// The IPFS CIDv0 (`Qm…`) of a file, as `ipfs add` prints it with its default settings.
///
/// It is the base58 multihash of the root of a balanced tree of dag-pb nodes, whose leaves are chunks of 256 KiB wrapped
/// as UnixFS data (IPFS specifications, "UnixFS" and "CIDv0").
pub fn cid_v0(file: &[u8]) -> String {
    let leaves = chunks(file).map(|chunk| {
        let node = pb_node(&[], &unixfs(Some(chunk), chunk.len() as u64, &[]));
        DagNode { cid: multihash(&node), file_bytes: chunk.len() as u64, total_bytes: node.len() as u64 }
    });
    bs58::encode(root(leaves.collect(), multihash).cid).into_string()
}

/// The IPFS CIDv1 (`bafy…`, `bafk…`) of a file, as `ipfs add --cid-version=1` prints it: leaves are the chunks themselves.
pub fn cid_v1(file: &[u8]) -> String {
    const RAW: u8 = 0x55;
    const DAG_PB: u8 = 0x70;
    let cid = |codec: u8, hash: Vec<u8>| [&[1, codec], hash.as_slice()].concat();
    let leaves = chunks(file).map(|chunk| DagNode {
        cid: cid(RAW, multihash(chunk)),
        file_bytes: chunk.len() as u64,
        total_bytes: chunk.len() as u64,
    });
    format!("b{}", base32(&root(leaves.collect(), |node| cid(DAG_PB, multihash(node))).cid))
}

/// The chunks of a file; an empty file has one that is empty.
fn chunks(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let empty = file.is_empty().then_some(&[][..]);
    empty.into_iter().chain(file.chunks(IPFS_CHUNK_BYTES))
}

/// Joins nodes until one is left.
fn root(mut level: Vec<DagNode>, cid: impl Fn(&[u8]) -> Vec<u8>) -> DagNode {
    while level.len() > 1 {
        level = level
            .chunks(IPFS_LINKS)
            .map(|children| {
                let sizes: Vec<u64> = children.iter().map(|child| child.file_bytes).collect();
                let file_bytes = sizes.iter().sum();
                let node = pb_node(children, &unixfs(None, file_bytes, &sizes));
                let below: u64 = children.iter().map(|child| child.total_bytes).sum();
                DagNode { cid: cid(&node), file_bytes, total_bytes: below + node.len() as u64 }
            })
            .collect();
    }
    level.pop().unwrap_or(DagNode { cid: vec![], file_bytes: 0, total_bytes: 0 })
}

/// UnixFS data of a file, or of a part of one.
fn unixfs(data: Option<&[u8]>, size: u64, blocks: &[u64]) -> Vec<u8> {
    let mut out = vec![0x08, 0x02]; // Type = File
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        push_field(&mut out, 0x12, data); // Data
    }
    out.push(0x18); // filesize
    prost::encoding::encode_varint(size, &mut out);
    for block in blocks {
        out.push(0x20); // blocksizes
        prost::encoding::encode_varint(*block, &mut out);
    }
    out
}

/// A dag-pb node: links first, then data.
fn pb_node(children: &[DagNode], data: &[u8]) -> Vec<u8> {
    let mut node = Vec::with_capacity(data.len() + 64 * children.len() + 8);
    for child in children {
        let mut link = Vec::with_capacity(64);
        push_field(&mut link, 0x0a, &child.cid); // PBLink.Hash
        push_field(&mut link, 0x12, b""); // PBLink.Name
        link.push(0x18); // PBLink.Tsize
        prost::encoding::encode_varint(child.total_bytes, &mut link);
        push_field(&mut node, 0x12, &link); // PBNode.Links
    }
    push_field(&mut node, 0x0a, data); // PBNode.Data
    node
}

fn multihash(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x12, 0x20]; // sha2-256, 32 bytes
    out.extend_from_slice(&Sha256::digest(bytes));
    out
}

/// RFC 4648 base32 in lower case, without padding (multibase `b`).
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut out = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut buffer, mut bits) = (0u32, 0);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(ALPHABET[(buffer >> bits & 31) as usize].into());
        }
    }
    if bits > 0 {
        out.push(ALPHABET[(buffer << (5 - bits) & 31) as usize].into());
    }
    out
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
    fn cids_equal_what_ipfs_add_prints() {
        assert_eq!(cid_v0(b"hello world\n"), "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o");
        assert_eq!(cid_v0(b""), "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH");
        assert_eq!(cid_v1(b"hello world\n"), "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4");
    }

    #[test]
    fn trees_of_chunks_have_one_root() {
        let file: Vec<u8> = (0..IPFS_CHUNK_BYTES * (IPFS_LINKS + 1) + 5).map(|i| (i % 251) as u8).collect();
        // Three levels; and a prefix of it with two.
        for (bytes, links) in [(&file[..], 2), (&file[..IPFS_CHUNK_BYTES + 1], 2), (&file[..IPFS_CHUNK_BYTES * 3], 3)] {
            let sizes = chunks(bytes).count();
            assert!(sizes >= links);
            assert!(cid_v0(bytes).starts_with("Qm") && cid_v1(bytes).starts_with("bafybei"));
        }
        assert!(cid_v1(&file[..IPFS_CHUNK_BYTES]).starts_with("bafkrei"), "one raw leaf");
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
