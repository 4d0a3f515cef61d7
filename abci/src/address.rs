//! Where an ABCI server listens.

use core::fmt;
use std::{net::SocketAddr, path::PathBuf, str::FromStr};

/// An address as CometBFT's `proxy_app` has it: `unix:///path/to/socket` or `tcp://127.0.0.1:26658`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => address
                .parse()
                .map(Self::Tcp)
                .map_err(|_| format!("`{address}` is no IP address with a port (for example 127.0.0.1:26658)")),
            _ => Err(format!("`{text}` is neither unix:///path/to/socket nor tcp://127.0.0.1:26658")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_cometbft_writes_them() {
        for text in ["unix:///run/penstock.sock", "tcp://127.0.0.1:26658", "tcp://[::1]:0"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "unix://", "/run/x", "tcp://localhost:1", "http://127.0.0.1:1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
