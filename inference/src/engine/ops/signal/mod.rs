//! Operators of signals: Fourier transforms, windows, the mel scale.

use super::Parse;

mod fourier;
mod windows;

#[cfg(test)]
mod tests;

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "DFT" => |node, _| fourier::dft(node),
        "STFT" => |node, _| fourier::stft(node),
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => |node, _| windows::window(node),
        "MelWeightMatrix" => |node, _| windows::mel_weight_matrix(node),
        _ => return None,
    })
}
