//! What the backend tests have not: hostile attributes and sizes, and that tracing foretells a run.

use super::super::find;
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        program::Eval,
        value::Value,
    },
    onnx::{
        Node,
        proto::{AttributeProto, NodeProto},
    },
};

pub(in crate::engine::ops) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i: Some(i), ..AttributeProto::default() }
}

pub(in crate::engine::ops) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.to_owned(), ints: ints.to_vec(), ..AttributeProto::default() }
}

pub(in crate::engine::ops) fn text(name: &str, text: &str) -> AttributeProto {
    AttributeProto { name: name.to_owned(), s: Some(text.to_owned().into()), ..AttributeProto::default() }
}

pub(in crate::engine::ops) fn floats(shape: &[usize], values: &[f32]) -> Value {
    let count: usize = shape.iter().product();
    let values = values.iter().cycle().copied().take(count).collect();
    Value::Known(Array::new::<f32>(DType::Float32, shape.to_vec(), values))
}

pub(in crate::engine::ops) fn whole(values: &[i64]) -> Value {
    Value::Known(Array::ints(values.to_vec()))
}

pub(in crate::engine::ops) fn parse(op: &str, opset: i64, attribute: Vec<AttributeProto>) -> Result<Eval, String> {
    let proto = NodeProto { op_type: op.to_owned(), attribute, ..NodeProto::default() };
    find("", op).unwrap()(
        &Node {
            proto: &proto,
            opset,
            constants: &[],
            slots: &[],
            packs: &crate::engine::Packs::within(u64::MAX),
            misread: &core::cell::Cell::new(false),
            rectified: false,
        },
        &[],
    )
}

fn evaluate(eval: &Eval, cx: &mut Cx<'_>, values: &[Value]) -> Result<Value, Stop> {
    let inputs = Inputs::new(values.iter().map(|v| (!matches!(v, Value::Nothing)).then_some(v)).collect());
    Ok(eval(cx, &inputs)?.remove(0))
}

/// Runs an operator, after tracing it with the elements of its first input unknown: type, shape and cost must be those
/// of the run. Float32 elements are returned.
pub(in crate::engine::ops) fn run(
    op: &str,
    opset: i64,
    attributes: Vec<AttributeProto>,
    values: &[Value],
) -> Result<(Vec<usize>, Vec<f32>), String> {
    let eval = parse(op, opset, attributes)?;
    let mut tracing = Cx::tracing();
    let mut unknown = values.to_vec();
    unknown[0] = values[0].forget();
    let traced = evaluate(&eval, &mut tracing, &unknown).map_err(|stop| format!("{stop:?}"))?;
    let mut running = Cx::running(1, None, None);
    let found = evaluate(&eval, &mut running, values).map_err(|stop| format!("{stop:?}"))?;
    assert!(!traced.is_known() && found.is_known());
    assert_eq!((traced.ty(), tracing.ops), (found.ty(), running.ops), "{op}");
    match found {
        Value::Known(array) => Ok((array.shape().to_vec(), array.values::<f32>().into_owned())),
        _ => Err("unknown".to_owned()),
    }
}

/// Neither tracing nor running gives anything.
pub(in crate::engine::ops) fn refused(op: &str, opset: i64, attributes: Vec<AttributeProto>, values: &[Value]) {
    let Ok(eval) = parse(op, opset, attributes) else { return };
    let unknown: Vec<Value> = [values[0].forget()].into_iter().chain(values[1..].iter().cloned()).collect();
    let traced = evaluate(&eval, &mut Cx::tracing(), &unknown);
    let found = evaluate(&eval, &mut Cx::running(1, None, None), values);
    assert!(traced.is_err() && found.is_err(), "{op}: {traced:?} {found:?}");
}

fn image() -> Value {
    floats(&[1, 4, 3, 5], &[1.0, -2.0, 0.5, 7.0, f32::INFINITY, 3.0, f32::NAN])
}

#[test]
fn sizes_that_nothing_fits_are_refused() {
    let none = || Value::Nothing;
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e30, 1e9] {
        refused("Resize", 19, vec![], &[image(), none(), floats(&[4], &[1.0, 1.0, scale, scale])]);
        refused("Resize", 19, vec![text("mode", "cubic")], &[image(), none(), floats(&[4], &[scale, 1.0, 1.0, 1.0])]);
        refused("Upsample", 9, vec![], &[image(), floats(&[4], &[scale])]);
    }
    for size in [-1, i64::MIN, i64::MAX, 1 << 31] {
        let sizes = whole(&[1, 4, size, size]);
        refused("Resize", 19, vec![], &[image(), none(), none(), sizes.clone()]);
        refused("Resize", 19, vec![text("keep_aspect_ratio_policy", "not_smaller")], &[image(), none(), none(), sizes]);
        refused("CenterCropPad", 18, vec![], &[image(), whole(&[1, size, size, 5])]);
        refused("Col2Im", 18, vec![], &[floats(&[1, 4, 9], &[0.0]), whole(&[size, size]), whole(&[2, 2])]);
        refused("Col2Im", 18, vec![], &[floats(&[1, 4, 9], &[0.0]), whole(&[4, 4]), whole(&[size, size])]);
        refused("AffineGrid", 20, vec![], &[floats(&[1, 2, 3], &[0.0]), whole(&[1, 1, size, size])]);
    }
    refused("Resize", 19, vec![], &[image()]);
    refused("Resize", 19, vec![], &[floats(&[0, 2], &[]), none(), none(), whole(&[1, 2])]);
    refused("Resize", 19, vec![ints("axes", &[9])], &[image(), none(), floats(&[1], &[2.0])]);
    refused("CenterCropPad", 18, vec![ints("axes", &[1, 1])], &[image(), whole(&[2, 3])]);
    refused("GridSample", 20, vec![], &[floats(&[1, 1, 0, 4], &[]), floats(&[1, 2, 2, 2], &[0.0])]);
    refused("GridSample", 20, vec![], &[floats(&[1, 1], &[0.0]), floats(&[1, 0], &[])]);
}

#[test]
fn empty_outputs_need_no_elements() {
    let none = || Value::Nothing;
    let (shape, _) = run("Resize", 19, vec![], &[image(), none(), none(), whole(&[0, 4, 1 << 14, 1 << 14])]).unwrap();
    assert_eq!(shape, [0, 4, 1 << 14, 1 << 14]);
    let linear = vec![text("mode", "linear")];
    let (shape, _) = run("Resize", 19, linear, &[image(), none(), floats(&[4], &[1.0, 1.0, 0.1, 2.0])]).unwrap();
    assert_eq!(shape, [1, 4, 0, 10]);
    assert_eq!(run("CenterCropPad", 18, vec![], &[image(), whole(&[1, 0, 9, 9])]).unwrap().0, [1, 0, 9, 9]);
}

#[test]
fn attributes_that_mean_nothing_are_refused() {
    for (op, attribute) in [
        ("Resize", text("mode", "none")),
        ("Resize", text("coordinate_transformation_mode", "none")),
        ("Resize", text("nearest_mode", "none")),
        ("Resize", int("antialias", 1)),
        ("GridSample", text("padding_mode", "none")),
        ("RoiAlign", int("output_height", 0)),
        ("RoiAlign", int("sampling_ratio", -1)),
        ("RoiAlign", int("output_width", i64::MAX)),
        ("MaxRoiPool", ints("pooled_shape", &[2])),
        ("MaxRoiPool", ints("pooled_shape", &[0, -1])),
        ("NonMaxSuppression", int("center_point_box", 2)),
        ("DeformConv", int("group", 0)),
        ("DeformConv", ints("strides", &[0, 1])),
        ("Col2Im", ints("dilations", &[1, -1])),
        ("DepthToSpace", int("blocksize", 0)),
        ("SpaceToDepth", int("blocksize", i64::MIN)),
    ] {
        assert!(parse(op, 20, vec![attribute.clone()]).is_err(), "{op} {attribute:?}");
    }
}

#[test]
fn attributes_beyond_any_image_are_refused() {
    let columns = floats(&[1, 4, 9], &[1.0]);
    for n in [1 << 40, i64::MAX] {
        let blocks = [columns.clone(), whole(&[4, 4]), whole(&[2, 2])];
        refused("Col2Im", 18, vec![ints("pads", &[n, n, n, n])], &blocks);
        refused("Col2Im", 18, vec![ints("dilations", &[n, 1])], &blocks);
        refused("Col2Im", 18, vec![ints("strides", &[n, n])], &blocks);
        let deform = [image(), floats(&[2, 4, 2, 2], &[1.0]), floats(&[1, 8, 2, 4], &[0.5])];
        assert!(run("DeformConv", 19, vec![], &deform).is_ok());
        refused("DeformConv", 19, vec![ints("pads", &[n, n, n, n])], &deform);
        refused("DeformConv", 19, vec![ints("dilations", &[n, n])], &deform);
        refused("DeformConv", 19, vec![ints("strides", &[n, 1])], &deform);
        refused("DeformConv", 19, vec![int("group", n)], &deform);
        refused("DeformConv", 19, vec![int("offset_group", n)], &deform);
        refused("DeformConv", 19, vec![ints("pads", &[1])], &deform);
    }
    refused("DepthToSpace", 13, vec![int("blocksize", 3)], &[image()]);
    refused("SpaceToDepth", 13, vec![int("blocksize", 65535)], &[image()]);
    let regions = [image(), floats(&[1, 4], &[0.0]), whole(&[0])];
    refused("RoiAlign", 16, vec![int("output_height", 1 << 31), int("output_width", 1 << 31)], &regions);
    refused("RoiAlign", 16, vec![int("sampling_ratio", (1 << 32) - 1)], &regions);
}

#[test]
fn elements_that_are_no_numbers_break_nothing() {
    let wild = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1e30, 0.3, -0.0, 1e-40, 65.0];
    for mode in ["nearest", "linear", "cubic"] {
        for padding in ["zeros", "border", "reflection"] {
            for corners in [0, 1] {
                let attributes = vec![text("mode", mode), text("padding_mode", padding), int("align_corners", corners)];
                for shape in [[1, 2, 3, 5], [1, 2, 1, 1]] {
                    let inputs = [floats(&shape, &[1.0, 2.0]), floats(&[1, 9, 9, 2], &wild)];
                    let (_, values) = run("GridSample", 20, attributes.clone(), &inputs).unwrap();
                    assert!(values.iter().all(|x| x.is_finite()), "{mode} {padding} {corners}: {values:?}");
                }
            }
        }
    }
    for ratio in [0, 3] {
        let attributes = || vec![int("sampling_ratio", ratio), int("output_height", 2), int("output_width", 3)];
        let regions = [image(), floats(&[9, 4], &wild), whole(&[0; 9])];
        assert!(run("RoiAlign", 16, attributes(), &regions).is_ok());
        assert!(run("RoiAlign", 10, attributes(), &regions).is_ok());
    }
    let mut regions = vec![0.0];
    regions.extend(&wild[..4]);
    let pooled = || vec![ints("pooled_shape", &[2, 2])];
    assert!(run("MaxRoiPool", 11, pooled(), &[image(), floats(&[1, 5], &regions)]).is_ok());
    assert!(run("MaxRoiPool", 11, pooled(), &[image(), floats(&[1, 5], &[1.0])]).is_err());
    let offsets = floats(&[1, 8, 2, 4], &wild);
    assert!(run("DeformConv", 19, vec![], &[image(), floats(&[2, 4, 2, 2], &[1.0]), offsets]).is_ok());
    let roi = floats(&[8], &wild[..8]);
    for mode in ["nearest", "linear", "cubic"] {
        let crop = || vec![text("mode", mode), text("coordinate_transformation_mode", "tf_crop_and_resize")];
        let sizes = whole(&[1, 4, 2, 9]);
        assert!(run("Resize", 19, crop(), &[image(), roi.clone(), Value::Nothing, sizes.clone()]).is_ok());
        refused("Resize", 19, crop(), &[image(), floats(&[3], &[0.0]), Value::Nothing, sizes]);
    }
}

#[test]
fn a_third_of_an_axis_begins_at_whole_elements() {
    // 1/3 as float32 is too great, so that in exact arithmetic the second element would be just below the third.
    let attributes = vec![text("coordinate_transformation_mode", "asymmetric"), text("nearest_mode", "floor")];
    let inputs =
        [floats(&[9], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), Value::Nothing, floats(&[1], &[1.0 / 3.0])];
    assert_eq!(run("Resize", 19, attributes, &inputs).unwrap(), (vec![3], vec![0.0, 3.0, 6.0]));
}

#[test]
fn texts_and_bools_can_be_moved() {
    let texts = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    let input = Value::Known(Array::text(vec![1, 4, 1, 1], texts));
    let eval = parse("DepthToSpace", 13, vec![int("blocksize", 2)]).unwrap();
    let found = evaluate(&eval, &mut Cx::running(1, None, None), core::slice::from_ref(&input)).unwrap();
    assert!(
        matches!(&found, Value::Known(array) if array.shape() == [1, 1, 2, 2] && array.texts() == ["a", "b", "c", "d"])
    );
    let eval = parse("CenterCropPad", 18, vec![]).unwrap();
    let found = evaluate(&eval, &mut Cx::running(1, None, None), &[input.clone(), whole(&[1, 3, 2, 1])]).unwrap();
    assert!(matches!(&found, Value::Known(array) if array.texts() == ["a", "", "b", "", "c", ""]), "{found:?}");
    let eval = parse("Resize", 19, vec![]).unwrap();
    let inputs = [input, Value::Nothing, floats(&[4], &[1.0, 0.5, 1.0, 2.0])];
    let found = evaluate(&eval, &mut Cx::running(1, None, None), &inputs).unwrap();
    assert!(matches!(&found, Value::Known(array) if array.texts() == ["a", "a", "c", "c"]), "{found:?}");
}
