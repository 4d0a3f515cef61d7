//! `penstock model inspect`.

use std::fs;

use anyhow::{Context, bail};
use penstock_chain::GenesisModel;
use penstock_inference::{Dim, Model, Sizes, content, onnx};

use super::{Found, NOT_FOR_CHAINS, parent};

/// Sizes to show the cost of, where none are given: some graphs need a few elements (a kernel's width, say).
const SIZES: [usize; 5] = [1, 3, 8, 32, 128];

pub(super) fn inspect(found: &Found, sizes: &[String], genesis_entry: Option<String>) -> anyhow::Result<()> {
    let model = &found.model;
    // The CIDs are those of the model as one file.
    let file = onnx::one_file(fs::read(&found.path)?.into(), parent(&found.path))?;
    if let Some(id) = genesis_entry {
        let descriptor = model.descriptor().map_err(Clone::clone)?;
        let entry = GenesisModel {
            id,
            aliases: vec![content::cid_v0(&file)],
            hash: model.hash(),
            // Absolute: right wherever the genesis document will be.
            file: Some(fs::canonicalize(&found.path)?.display().to_string()),
            policy: penstock_evm::Policy::Replicated,
            active: true,
            inputs: descriptor.inputs.clone(),
            outputs: descriptor.outputs.clone(),
            ops: descriptor.ops.clone(),
        };
        say!("{}", serde_json::to_string_pretty(&entry)?);
        return Ok(());
    }
    say!("content hash  {}", model.hash());
    say!("IPFS CIDv0    {}", content::cid_v0(&file));
    say!("IPFS CIDv1    {}", content::cid_v1(&file));
    let descriptor = match model.descriptor() {
        Ok(descriptor) => descriptor,
        Err(error) => {
            model.inputs().iter().for_each(|declared| say!("input         {declared}"));
            model.outputs().iter().for_each(|declared| say!("output        {declared}"));
            say!("{NOT_FOR_CHAINS} {error}");
            return Ok(());
        }
    };
    descriptor.inputs.iter().for_each(|spec| say!("input         {spec}"));
    descriptor.outputs.iter().for_each(|spec| say!("output        {spec}"));
    say!("ops           {}", descriptor.ops);
    let dims = open_dims(descriptor.inputs.iter().flat_map(|spec| &spec.shape));
    let sizes = if sizes.is_empty() { small(model, &dims) } else { parse_sizes(sizes, &dims)? };
    let of_what: Vec<String> = dims.iter().map(|dim| format!("{dim}={}", sizes.of(dim))).collect();
    let of_what = if dims.is_empty() { String::new() } else { format!(" for {}", of_what.join(",")) };
    let total = descriptor.ops.of(&sizes);
    let bytes = model.peak_bytes(&sizes).with_context(|| format!("it cannot run{of_what}: give other --sizes"))?;
    say!("a run         {total} ops{of_what}, at most {bytes} bytes of values at a time");
    for cost in model.cost_by_operator(&sizes)? {
        let share = 100.0 * cost.ops as f64 / total.max(1) as f64;
        say!("  {:<24} x{:<5} {:>16} ops {share:>6.1} %", cost.operator, cost.nodes, cost.ops);
    }
    Ok(())
}

fn open_dims<'a>(dims: impl Iterator<Item = &'a Dim>) -> Vec<&'a Dim> {
    let mut open = Vec::new();
    for dim in dims.filter(|dim| !matches!(dim, Dim::Fixed(_))) {
        if !open.contains(&dim) {
            open.push(dim);
        }
    }
    open
}

/// One row, and the smallest of a few sizes with which the model runs.
fn small(model: &Model, dims: &[&Dim]) -> Sizes {
    let of = |size: usize| {
        let mut sizes = Sizes::batch(1);
        dims.iter().filter(|dim| ***dim != Dim::Batch).for_each(|dim| {
            sizes.bind(dim, size);
        });
        sizes
    };
    SIZES.into_iter().map(of).find(|sizes| model.peak_bytes(sizes).is_ok()).unwrap_or_else(|| of(1))
}

/// `batch=4` and the like; dimensions that are not named are 1.
fn parse_sizes(texts: &[String], dims: &[&Dim]) -> anyhow::Result<Sizes> {
    let mut sizes = Sizes::default();
    for text in texts {
        let (name, size) = text.split_once('=').with_context(|| format!("`{text}` is not like batch=4"))?;
        let size = size.parse().with_context(|| format!("`{size}` is no size"))?;
        let dim = dims.iter().find(|dim| dim.to_string() == name).with_context(|| {
            let names: Vec<String> = dims.iter().map(|dim| format!("`{dim}`")).collect();
            let there = if names.is_empty() { "all are fixed".to_owned() } else { names.join(", ") };
            format!("no input has an open dimension `{name}` (there are: {there})")
        })?;
        if !sizes.bind(dim, size) {
            bail!("`{name}` must be at least 1, and given once");
        }
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_of_open_dimensions() {
        let dims = [Dim::Batch, Dim::Fixed(3), Dim::Named("seq".into()), Dim::Batch];
        let open = open_dims(dims.iter());
        assert_eq!(open, [&dims[0], &dims[2]]);
        let parse = |texts: &[&str]| parse_sizes(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>(), &open);
        let sizes = parse(&["batch=4", "seq=128"]).unwrap();
        assert_eq!((sizes.rows(), sizes.of(&dims[2])), (4, 128));
        for bad in ["batch", "batch=x", "3=3", "other=1", "seq=0"] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }
}
