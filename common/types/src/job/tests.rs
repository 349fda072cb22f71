//! Defaults, refusals and the checked-in schema.

use super::*;

const SMALL: &str = "
apiVersion: r2o.dev/v1
kind: TrainJob
metadata: {name: small}
spec:
  data: {url: /set}
";

fn refused(change: impl Fn(&str) -> String) -> String {
    TrainJob::parse(&change(SMALL)).expect_err("the job was accepted").to_string()
}

fn with(line: &str) -> String {
    refused(|text| format!("{text}  {line}\n"))
}

#[test]
fn everything_but_name_and_data_has_the_papers_value() {
    let job = TrainJob::parse(SMALL).unwrap();
    assert_eq!((job.spec.epochs, job.spec.data.image_size), (300, 224));
    assert_eq!(
        (job.spec.batch.lanes, job.spec.batch.samples_per_lane, job.spec.batch.norm_group_lanes),
        (128, 32, 128)
    );
    assert_eq!(job.spec.method.prior, Prior::Slic { segments: 100 });
    assert_eq!(job.spec.method.curriculum, Curriculum::Cosine { from: 128, to: 4, epochs: [0, 300] });
    assert_eq!(job.spec.model.backbone, Backbone::Resnet50);
    assert_eq!(job.spec.optimizer.scale_learning_rate_by_k, Some(16.0));
    assert_eq!(job.spec.model.target_momentum, TargetMomentum { base: 0.99, final_: 1.0 });
}

#[test]
fn json_and_back_is_the_same_job() {
    let job = TrainJob::parse(SMALL).unwrap();
    assert_eq!(TrainJob::parse(&job.to_json()).unwrap(), job);
}

#[test]
fn pixels_have_the_precision_unless_they_are_levels() {
    let dtype = |more: &str, pixel_type: &str| {
        let text = SMALL.replace("url: /set", &format!("url: /set, pixelType: {pixel_type}"));
        TrainJob::parse(&(text + more)).unwrap().spec.pixel_dtype()
    };
    use crate::Dtype::{Bfloat16, Float32, Uint8};
    assert_eq!([dtype("", "float"), dtype("", "uint8")], [Float32, Uint8]);
    assert_eq!(
        [dtype("  precision: bfloat16\n", "float"), dtype("  precision: bfloat16\n", "uint8")],
        [Bfloat16, Uint8]
    );
    // What has the default reads as it did before there was the field.
    assert!(!TrainJob::parse(SMALL).unwrap().to_json().contains("pixelType"));
}

#[test]
fn a_misspelt_field_is_refused_with_its_path() {
    let message = with("batch: {lnaes: 4}");
    assert!(message.starts_with("spec.batch") && message.contains("lnaes") && message.contains("lanes"), "{message}");
    let message = with("method: {prior: {kind: slic, segmnets: 3}}");
    assert!(message.starts_with("spec.method.prior") && message.contains("segmnets"), "{message}");
}

#[test]
fn a_value_of_another_type_is_refused_with_its_path() {
    let message = with("epochs: many");
    assert!(message.starts_with("spec.epochs"), "{message}");
    let message = with("model: {backbone: resnet19}");
    assert!(message.starts_with("spec.model.backbone") && message.contains("resnet18"), "{message}");
}

#[test]
fn impossible_values_are_refused_all_at_once() {
    let message = with("batch: {lanes: 4, normGroupLanes: 3}\n  fleet: {minWorkers: 5}\n  priority: 1");
    assert!(message.contains("spec.batch.normGroupLanes: is 3, must divide the 4 lanes"), "{message}");
    assert!(message.contains("spec.fleet.minWorkers: is 5"), "{message}");
}

#[test]
fn an_input_size_of_100_is_refused_with_its_neighbours() {
    let message = refused(|text| text.replace("{url: /set}", "{url: /set, imageSize: 100}"));
    assert!(message.starts_with("spec.data.imageSize: is 100"), "{message}");
    assert!(message.contains("96") && message.contains("128"), "{message}");
}

#[test]
fn more_clusters_than_regions_are_refused() {
    let message = with("batch: {samplesPerLane: 1}");
    assert!(message.starts_with("spec.method.curriculum: K = 128 is larger than the 100 regions"), "{message}");
    let masks_off = SMALL.to_owned() + "  batch: {samplesPerLane: 1}\n  method: {maskPrediction: {enabled: false}}\n";
    assert!(TrainJob::parse(&masks_off).is_ok(), "without K-means there is nothing to be too large");
}

#[test]
fn plain_byol_is_a_configuration() {
    let method =
        "  method: {prior: {kind: none}, maskPrediction: {enabled: false}, curriculum: {kind: constant, k: 1}}\n";
    let job = TrainJob::parse(&(SMALL.to_owned() + method)).unwrap();
    assert_eq!(job.spec.method.prior.regions(), 1);
    assert!(with("method: {prior: {kind: none}}").contains("spec.method.maskPrediction.enabled"));
}

#[test]
fn what_is_not_a_job_is_refused() {
    assert!(TrainJob::parse("a: [").unwrap_err().to_string().contains("not YAML"));
    assert!(TrainJob::parse("[1, 2]").unwrap_err().to_string().contains("not a job"));
    assert!(refused(|text| text.replace("r2o.dev/v1", "v2")).contains("apiVersion"));
    assert!(refused(|text| text.replace("name: small", "name: Not_A_Label")).contains("metadata.name"));
    assert!(refused(|text| text.replace("data: {url: /set}", "epochs: 3")).contains("data"));
}

#[test]
fn what_is_not_available_yet_is_refused_and_says_so() {
    for line in ["method: {objective: nt_xent}", "model: {backbone: vit_b_16}"] {
        assert!(with(line).contains("not available yet"), "{line}");
    }
}
