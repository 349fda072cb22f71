//! The same weights under other programs' names.

use std::collections::BTreeMap;

use super::safetensors::Tensor;
use crate::cli::Layout;

const COUNT: &str = "num_batches_tracked";

/// The name that a torchvision tensor gets, or `None` when the layout has no place for it.
pub(super) fn rename(name: &str, layout: Layout) -> Option<String> {
    match layout {
        Layout::Torchvision | Layout::State => Some(name.to_owned()),
        Layout::Mmsegmentation => Some(format!("backbone.{name}")),
        Layout::Detectron2 => detectron2(name),
    }
}

/// As `tools/convert-torchvision-to-d2.py` of Detectron2 names a torchvision ResNet. Its batch norm keeps no count.
fn detectron2(name: &str) -> Option<String> {
    if name.ends_with(COUNT) {
        return None;
    }
    let mut name = if name.contains("layer") { name.to_owned() } else { format!("stem.{name}") };
    for t in 1..=4 {
        name = name.replace(&format!("layer{t}"), &format!("res{}", t + 1));
    }
    for t in 1..=3 {
        name = name.replace(&format!("bn{t}"), &format!("conv{t}.norm"));
    }
    Some(name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm"))
}

/// torchvision's batch norm has a counter of its updates, which a strict `load_state_dict` asks for. A state that does not
/// keep it gets the number of steps.
pub(super) fn add_batch_counts(tensors: &mut BTreeMap<String, Tensor>, step: u64, layout: Layout) {
    if layout == Layout::Detectron2 {
        return;
    }
    let norms: Vec<String> =
        tensors.keys().filter_map(|name| name.strip_suffix("running_mean")).map(str::to_owned).collect();
    for norm in norms {
        let count = Tensor { dtype: "I64".into(), shape: Vec::new(), data: step.to_le_bytes().to_vec() };
        tensors.entry(format!("{norm}{COUNT}")).or_insert(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_programs() {
        let d2 = |name| rename(name, Layout::Detectron2);
        assert_eq!(d2("conv1.weight").as_deref(), Some("stem.conv1.weight"));
        assert_eq!(d2("bn1.running_var").as_deref(), Some("stem.conv1.norm.running_var"));
        assert_eq!(d2("layer1.0.conv2.weight").as_deref(), Some("res2.0.conv2.weight"));
        assert_eq!(d2("layer4.2.bn3.bias").as_deref(), Some("res5.2.conv3.norm.bias"));
        assert_eq!(d2("layer2.0.downsample.0.weight").as_deref(), Some("res3.0.shortcut.weight"));
        assert_eq!(d2("layer2.0.downsample.1.weight").as_deref(), Some("res3.0.shortcut.norm.weight"));
        assert_eq!(d2("bn1.num_batches_tracked"), None);
        assert_eq!(rename("bn1.bias", Layout::Mmsegmentation).as_deref(), Some("backbone.bn1.bias"));
    }

    #[test]
    fn missing_counters_are_added() {
        let mean = Tensor { dtype: "F32".into(), shape: vec![0], data: Vec::new() };
        let mut tensors = BTreeMap::from([("layer1.0.bn1.running_mean".to_owned(), mean)]);
        add_batch_counts(&mut tensors, 5, Layout::Torchvision);
        assert_eq!(tensors["layer1.0.bn1.num_batches_tracked"].data, 5_i64.to_le_bytes());
        assert_eq!(tensors.len(), 2);
    }
}
