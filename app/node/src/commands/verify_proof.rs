//! `penstock verify-proof`: checks what `pipe_getInferenceProof` answered, with nothing but a trusted header.

use std::{fs, path::PathBuf};

use alloy_primitives::B256;
use anyhow::{Context, bail};
use clap::Args;
use penstock_chain::InferenceProof;
use penstock_inference::result;
use serde_json::Value;

/// Check the proof of an inference, up to a header of CometBFT
///
/// FILE is an answer of pipe_getInferenceProof. The proof leads to the hash of an Ethereum header, which is `app_hash` in
/// CometBFT's header of the next height: give that header as a light client (`cometbft light`) answers it to /commit or
/// /header, or the hash alone.
#[derive(Debug, Args)]
pub(crate) struct VerifyProof {
    /// The proof, as JSON; with or without the frame of JSON-RPC
    file: PathBuf,
    /// A trusted answer of CometBFT's /commit?height=… or /header?height=…, for the height after the block's
    #[arg(long, value_name = "FILE", conflicts_with = "app_hash")]
    header: Option<PathBuf>,
    /// A trusted `app_hash` of the height after the block's
    #[arg(long, value_name = "HASH")]
    app_hash: Option<B256>,
}

fn read(path: &PathBuf) -> anyhow::Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let value: Value = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
    // A proof alone has a text there.
    Ok(match value.get("result") {
        Some(framed @ Value::Object(_)) => framed.clone(),
        _ => value,
    })
}

pub(crate) fn run(verify: VerifyProof) -> anyhow::Result<()> {
    let proof: InferenceProof =
        serde_json::from_value(read(&verify.file)?).context("this is not a proof of an inference")?;
    let proved = proof.verify()?;
    let number = proved.header.number;
    say!("Request      {}", proved.id);
    match &proved.result {
        Ok(outputs) => {
            say!("Result       {} tensors, digest {}", outputs.len(), result::digest(&proved.result));
            outputs.iter().for_each(|tensor| say!("Output       {}", super::model::output(tensor)));
        }
        Err(failure) => say!("Result       failed: {failure}"),
    }
    say!("Block        {number}, hash {}", proved.block_hash);
    let trusted = match (&verify.header, verify.app_hash) {
        (Some(path), _) => Some(app_hash(&read(path)?, number)?),
        (None, hash) => hash,
    };
    match trusted {
        Some(hash) if hash == proved.block_hash => {
            say!("Proved       by the trusted header of height {}", number.saturating_add(1));
        }
        Some(hash) => bail!("the trusted header has app_hash {hash}: this block is not of its chain"),
        None => say!(
            "Not checked  whether this block is of the chain: compare its hash with app_hash of height {} (--header, --app-hash)",
            number.saturating_add(1)
        ),
    }
    Ok(())
}

/// `app_hash` of an answer of CometBFT, for the height after a block.
fn app_hash(answer: &Value, block: u64) -> anyhow::Result<B256> {
    let header = answer.pointer("/signed_header/header").or_else(|| answer.get("header")).unwrap_or(answer);
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    let height: u64 = text("height").and_then(|text| text.parse().ok()).context("the header has no height")?;
    if Some(height) != block.checked_add(1) {
        bail!("the header is of height {height}: the one after block {block} says what that block's hash is");
    }
    text("app_hash").and_then(|text| text.parse().ok()).context("the header has no app_hash")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hash_is_taken_from_the_header_of_the_next_height() {
        let hash = "AB".repeat(32);
        let header = json!({ "height": "8", "app_hash": hash });
        for answer in [header.clone(), json!({ "header": header }), json!({ "signed_header": { "header": header } })] {
            assert_eq!(app_hash(&answer, 7).unwrap(), B256::repeat_byte(0xab));
            assert!(app_hash(&answer, 8).unwrap_err().to_string().contains("height 8"));
        }
        assert!(app_hash(&json!({ "height": "8" }), 7).is_err());
    }
}
