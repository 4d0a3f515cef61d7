//! CometBFT's key files: ed25519, in its JSON (`p2p/key.go`, `privval/file.go`).

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use alloy_primitives::hex;
use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A key pair.
#[derive(Debug)]
pub(crate) struct Key(SigningKey);

impl Key {
    /// A new one, from the system's randomness.
    pub(crate) fn generate() -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).context("the system has no randomness")?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// The first 20 bytes of SHA-256 of the public key (`crypto/tmhash`).
    fn address(&self) -> [u8; 20] {
        let digest = Sha256::digest(self.0.verifying_key().as_bytes());
        let mut address = [0; 20];
        address.copy_from_slice(&digest[..20]);
        address
    }

    /// Name of a node among its peers.
    pub(crate) fn node_id(&self) -> String {
        hex::encode(self.address())
    }

    /// The public key.
    pub(crate) fn public_hex(&self) -> String {
        hex::encode_prefixed(self.0.verifying_key().as_bytes())
    }

    fn private(&self) -> Value {
        json!({ "type": "tendermint/PrivKeyEd25519", "value": STANDARD.encode(self.0.to_keypair_bytes()) })
    }

    fn public(&self) -> Value {
        json!({ "type": "tendermint/PubKeyEd25519", "value": STANDARD.encode(self.0.verifying_key().as_bytes()) })
    }

    fn address_text(&self) -> String {
        hex::encode_upper(self.address())
    }

    /// This validator in a genesis document.
    pub(crate) fn genesis_validator(&self, name: &str) -> Value {
        json!({ "address": self.address_text(), "pub_key": self.public(), "power": "10", "name": name })
    }

    /// `node_key.json`.
    pub(crate) fn write_node_key(&self, path: &Path) -> anyhow::Result<()> {
        write_secret(path, &json!({ "priv_key": self.private() }))
    }

    /// `priv_validator_key.json`.
    pub(crate) fn write_validator_key(&self, path: &Path) -> anyhow::Result<()> {
        let file = json!({ "address": self.address_text(), "pub_key": self.public(), "priv_key": self.private() });
        write_secret(path, &file)
    }
}

/// `priv_validator_state.json` of a validator that has signed nothing.
pub(crate) fn write_validator_state(path: &Path) -> anyhow::Result<()> {
    write_secret(path, &json!({ "height": "0", "round": 0, "step": 0 }))
}

/// A new file that only its owner may read.
fn write_secret(path: &Path, content: &Value) -> anyhow::Result<()> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(format!("{content:#}\n").as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // That CometBFT reads these files the same way is tested in tests/nodes_of_a_network.rs.
    #[test]
    fn a_key_is_its_seed_and_its_public_half_and_names_the_node() {
        let key = Key(SigningKey::from_bytes(&[7; 32]));
        let public = key.public()["value"].as_str().unwrap().to_owned();
        assert_eq!(STANDARD.decode(public).unwrap(), key.0.verifying_key().as_bytes());
        assert_eq!(key.node_id().len(), 40);
        assert_eq!(key.node_id().to_uppercase(), key.address_text());
        let private = STANDARD.decode(key.private()["value"].as_str().unwrap()).unwrap();
        assert_eq!(private[..32], [7; 32]);
        assert_eq!(&private[32..], key.0.verifying_key().as_bytes());
    }
}
