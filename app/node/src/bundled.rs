//! The default genesis and its models, as part of the program: `penstock dev` needs no files.

use penstock_inference::ContentHash;

/// The `genesis.json` at the repository's root.
pub(crate) const GENESIS: &[u8] = include_bytes!("../../../genesis.json");

const MODELS: [&[u8]; 4] = [
    include_bytes!("../../../inference/models/linear/linear.onnx"),
    include_bytes!("../../../inference/models/digits-mlp/digits-mlp.onnx"),
    include_bytes!("../../../inference/models/digits-cnn/digits-cnn.onnx"),
    include_bytes!("../../../inference/models/volatility/volatility.onnx"),
];

/// The file of a bundled model.
pub(crate) fn model(hash: &ContentHash) -> Option<&'static [u8]> {
    MODELS.into_iter().find(|file| ContentHash::of(file) == *hash)
}

#[cfg(test)]
mod tests {
    use penstock_chain::GenesisDoc;
    use penstock_inference::content;

    use super::*;

    #[test]
    fn the_default_genesis_describes_the_bundled_models_exactly() {
        let genesis = GenesisDoc::parse(GENESIS).unwrap().genesis;
        assert_eq!(genesis.models.len(), MODELS.len());
        for registered in &genesis.models {
            let file = model(&registered.hash).unwrap();
            let model = penstock_inference::Model::load(file).unwrap();
            assert_eq!(registered.descriptor(), *model.descriptor().unwrap(), "{}", registered.id);
            assert_eq!(registered.aliases, [content::cid_v0(file)], "{}", registered.id);
        }
    }
}
