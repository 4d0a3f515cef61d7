//! CometBFT beside this process: its keys, its configuration, the process itself, and what its mempool is told.

pub(crate) mod config;
pub(crate) mod handover;
pub(crate) mod keys;
pub(crate) mod supervisor;

use std::str::FromStr;

use clap::ValueEnum;
use penstock_chain::Gossip;

/// A CometBFT that is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    /// v0.38.25: what most chains run. Its mempool floods.
    #[value(name = "0.38")]
    V0_38,
    /// v0.40.0: the mempool is the application's own.
    #[value(name = "0.40")]
    V0_40,
}

impl Version {
    /// How peers hear of transactions.
    pub(crate) fn gossip(self) -> Gossip {
        match self {
            Self::V0_38 => Gossip::Flood,
            Self::V0_40 => Gossip::App,
        }
    }
}

impl FromStr for Version {
    type Err = String;

    /// Reads what `cometbft version` prints.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_start_matches('v');
        match text.split('.').take(2).collect::<Vec<_>>().as_slice() {
            ["0", "38"] => Ok(Self::V0_38),
            ["0", "40"] => Ok(Self::V0_40),
            // v0.40.0 calls itself 0.39.0.
            ["0", "39"] if text == "0.39.0" => Ok(Self::V0_40),
            _ => Err(format!("CometBFT {text} is not supported: use v0.38.25 or v0.40.0 (scripts/install-cometbft)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_cometbft_prints_them() {
        assert_eq!("0.38.25\n".parse(), Ok(Version::V0_38));
        assert_eq!("0.39.0".parse(), Ok(Version::V0_40));
        assert_eq!("v0.40.1".parse(), Ok(Version::V0_40));
        for text in ["1.0.1", "0.39.4", "0.37.9", "", "0.380.1"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
