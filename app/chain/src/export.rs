//! A state as the genesis document of a new chain.

use std::io::{self, Write};

use alloy_primitives::{Address, B256, Bytes, U256, hex};
use alloy_trie::EMPTY_ROOT_HASH;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use penstock_evm::CANDLE_FEED;
use penstock_state::{StoreError, View, decode_account};
use revm::{DatabaseRef, primitives::KECCAK_EMPTY};
use serde_json::{Value, json};

use crate::{
    VALIDATORS, ValidatorKey,
    validators::{self, admin},
};

/// Why a state could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was written could not be written.
    #[error("cannot write the document: {0}")]
    Write(#[from] io::Error),
    /// The chain's own document is none.
    #[error("the chain's genesis document has no object `{0}`")]
    Document(&'static str),
    /// The block's header is not here.
    #[error("the header of block {0} is not here")]
    Header(u64),
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Height of the state.
    pub height: u64,
    /// Its root: that of the new chain's block 0, too, where it begins with the same validators.
    pub state_root: B256,
    /// Accounts.
    pub accounts: u64,
    /// Slots.
    pub slots: u64,
}

/// Writes a genesis document whose chain begins with the state of a view. Everything but accounts, validators, time and
/// base fee is as in `document`, the chain's own genesis document. Account by account: the memory that it takes does not
/// depend on the state.
///
/// # Errors
/// [`ExportError`].
pub fn export(view: &View, document: &Value, out: &mut dyn Write) -> Result<Exported, ExportError> {
    let header = view.header(view.height())?.ok_or(ExportError::Header(view.height()))?;
    let fields = document.as_object().ok_or(ExportError::Document("(the document itself)"))?;
    let state = fields.get("app_state").and_then(Value::as_object).ok_or(ExportError::Document("app_state"))?;
    let mut config = state.get("config").cloned().ok_or(ExportError::Document("app_state.config"))?;
    let next = header.next_block_base_fee(alloy_eips::eip1559::BaseFeeParams::ethereum());
    config["baseFee"] = next.unwrap_or_default().into();
    let validators = validators::read(view)?;
    match admin(view)? {
        Some(admin) => config["validatorAdmin"] = admin.to_string().into(),
        // Whoever was admin has given it up.
        None if view.account(VALIDATORS)?.is_some() => {
            config.as_object_mut().map(|config| config.remove("validatorAdmin"));
        }
        None => {}
    }
    let time = std::time::UNIX_EPOCH + core::time::Duration::from_secs(header.timestamp);
    let mut json = Json { out, comma: false };
    json.open("{")?;
    for (key, value) in fields {
        match key.as_str() {
            "app_state" | "validators" | "app_hash" | "initial_height" => {}
            "genesis_time" => json.field(key, &humantime::format_rfc3339(time).to_string().into())?,
            _ => json.field(key, value)?,
        }
    }
    json.field("initial_height", &"1".into())?;
    json.field("app_hash", &"".into())?;
    if !validators.is_empty() {
        json.field(
            "validators",
            &validators.iter().map(|validator| of_validator(&validator.key, validator.power)).collect(),
        )?;
    }
    json.key("app_state")?;
    json.open("{")?;
    for (key, value) in state {
        match key.as_str() {
            "alloc" => {}
            "config" => json.field(key, &config)?,
            // Whoever was the feeder may have handed it on.
            "priceFeed" => json.field(key, &json!({ "feeder": feeder(view)?.to_string() }))?,
            _ => json.field(key, value)?,
        }
    }
    json.key("alloc")?;
    json.open("{")?;
    let mut exported = Exported { height: view.height(), state_root: header.state_root, accounts: 0, slots: 0 };
    put_accounts(view, &mut json, &mut exported)?;
    for _ in ["alloc", "app_state", "document"] {
        json.close("}")?;
    }
    json.out.write_all(b"\n")?;
    json.out.flush()?;
    Ok(exported)
}

/// The account that feeds prices: slot 0 of its contract.
fn feeder(view: &View) -> Result<Address, StoreError> {
    Ok(Address::from_word(view.storage_ref(CANDLE_FEED, U256::ZERO)?.into()))
}

/// Writes every account with its code and slots.
fn put_accounts(view: &View, json: &mut Json<'_>, exported: &mut Exported) -> Result<(), ExportError> {
    // A scan's error is the store's; that of writing is kept beside it.
    let mut failed = None;
    view.accounts(&mut |hash, address, leaf| {
        let account = decode_account(leaf)?;
        let code = match account.code_hash {
            KECCAK_EMPTY => Bytes::new(),
            code => view.code_by_hash_ref(code)?.original_bytes(),
        };
        let mut result = json.account(address, account.nonce, account.balance, &code);
        if account.storage_root != EMPTY_ROOT_HASH && result.is_ok() {
            result = json.key("storage").and_then(|()| json.open("{"));
            view.slots(hash, &mut |_, slot, value| {
                if result.is_ok() {
                    result = json.field(&B256::from(slot).to_string(), &B256::from(value).to_string().into());
                    exported.slots += 1;
                }
                Ok(result.is_ok())
            })?;
            result = result.and_then(|()| json.close("}"));
        }
        exported.accounts += 1;
        failed = result.and_then(|()| json.close("}")).err();
        Ok(failed.is_none())
    })?;
    failed.map_or(Ok(()), |error: io::Error| Err(error.into()))
}

/// A validator as CometBFT's genesis document has it.
fn of_validator(key: &ValidatorKey, power: u64) -> Value {
    let kind = match key {
        ValidatorKey::Ed25519(_) => "tendermint/PubKeyEd25519",
        ValidatorKey::Secp256k1(_) => "tendermint/PubKeySecp256k1",
    };
    json!({ "pub_key": { "type": kind, "value": STANDARD.encode(key.bytes()) }, "power": power.to_string(), "name": "" })
}

/// JSON that is written as it comes.
struct Json<'a> {
    out: &'a mut dyn Write,
    /// Whether the next field is not the first one of its object.
    comma: bool,
}

impl Json<'_> {
    fn open(&mut self, bracket: &str) -> io::Result<()> {
        self.comma = false;
        self.out.write_all(bracket.as_bytes())
    }

    fn close(&mut self, bracket: &str) -> io::Result<()> {
        self.comma = true;
        self.out.write_all(bracket.as_bytes())
    }

    fn key(&mut self, key: &str) -> io::Result<()> {
        if self.comma {
            self.out.write_all(b",")?;
        }
        self.comma = true;
        write!(self.out, "\n{}:", Value::from(key))
    }

    fn field(&mut self, key: &str, value: &Value) -> io::Result<()> {
        self.key(key)?;
        write!(self.out, "{value}")
    }

    /// An account, up to its storage.
    fn account(&mut self, address: Address, nonce: u64, balance: U256, code: &Bytes) -> io::Result<()> {
        self.key(&address.to_string())?;
        self.open("{")?;
        self.field("balance", &format!("{balance:#x}").into())?;
        if nonce > 0 {
            self.field("nonce", &format!("{nonce:#x}").into())?;
        }
        if !code.is_empty() {
            self.field("code", &hex::encode_prefixed(code).into())?;
        }
        Ok(())
    }
}
