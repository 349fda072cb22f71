//! Whole steps: lanes, failures, state.

use std::collections::HashMap;

use r2o_types::{JobSpec, TrainJob};
use tch::{Device, Kind, Tensor};

use crate::host::HostBatch;
use crate::{Engine, EngineError, EngineOptions, MemoryFormat, StateError, StepBatch, StepError, StepTicket};

const SIZE: i64 = 64;
const IMAGES: i64 = 3;
const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn job(lanes: u32, norm_group: u32) -> JobSpec {
    let text = format!(
        "{{apiVersion: r2o.dev/v1, kind: TrainJob, metadata: {{name: test}}, spec: {{seed: 7, data: {{url: unused, \
         imageSize: {SIZE}}}, batch: {{lanes: {lanes}, samplesPerLane: {IMAGES}, normGroupLanes: {norm_group}}}, method: \
         {{prior: {{kind: slic, segments: 16}}, curriculum: {{kind: constant, k: 4}}}}, model: {{backbone: resnet18, \
         projector: {{hidden: 16, output: 8}}, predictor: {{hidden: 16}}}}}}}}"
    );
    TrainJob::parse(&text).unwrap().spec
}

fn engine(job: &JobSpec, lanes: &[u32]) -> Engine {
    Engine::new(EngineOptions { job: job.clone(), device: Device::Cpu, lanes: lanes.to_vec(), threads: None }).unwrap()
}

fn ticket(step: u64) -> StepTicket {
    StepTicket { step, epoch: 0, k: 4, tau: 0.9, learning_rate: 0.1 }
}

/// Images of some lanes; lane `l` has `9 + l` regions.
fn batch(lanes: &[u32]) -> StepBatch {
    let per_lane: Vec<StepBatch> = lanes.iter().map(|&lane| lane_batch(lane)).collect();
    let cat = |part: fn(&StepBatch) -> &Tensor| Tensor::cat(&per_lane.iter().map(part).collect::<Vec<_>>(), 0);
    StepBatch {
        raw: cat(|b| &b.raw),
        view1: cat(|b| &b.view1),
        view2: cat(|b| &b.view2),
        prior: cat(|b| &b.prior),
        boxes1: cat(|b| &b.boxes1),
        boxes2: cat(|b| &b.boxes2),
        flips1: cat(|b| &b.flips1),
        flips2: cat(|b| &b.flips2),
        centres: None,
        audit: true,
    }
}

fn lane_batch(lane: u32) -> StepBatch {
    let mut random = r2o_types::Keyed::new("test batch", &[u64::from(lane)]);
    let mut uniform = |shape: &[i64], low: f64, high: f64| {
        let values: Vec<f32> =
            (0..shape.iter().product::<i64>()).map(|_| random.uniform_in(low, high) as f32).collect();
        Tensor::from_slice(&values).view(shape)
    };
    let mut image = || {
        let coarse = uniform(&[IMAGES, 3, 8, 8], -2.0, 2.0);
        coarse.repeat_interleave_self_int(SIZE / 8, 2, None).repeat_interleave_self_int(SIZE / 8, 3, None)
    };
    let (raw, view1, view2) = (image(), image(), image());
    let mut boxes = || {
        let corner = uniform(&[IMAGES, 2], 0.0, 0.4);
        Tensor::cat(&[&corner, &(&corner + 0.55)], 1)
    };
    let (boxes1, boxes2) = (boxes(), boxes());
    let regions = 9 + i64::from(lane);
    let pixel = Tensor::arange(SIZE * SIZE, (Kind::Int64, Device::Cpu)) * regions;
    let prior =
        pixel.divide_scalar_mode(SIZE * SIZE, "floor").view([1, SIZE, SIZE]).expand([IMAGES, SIZE, SIZE], false);
    let flip = |first: bool| Tensor::from_slice(&[first, false, true]);
    let prior = prior.contiguous();
    StepBatch {
        raw,
        view1,
        view2,
        prior,
        boxes1,
        boxes2,
        flips1: flip(true),
        flips2: flip(false),
        centres: None,
        audit: true,
    }
}

fn close(a: &Tensor, b: &Tensor, tolerance: f64) -> bool {
    let scale = f64::try_from(b.norm()).unwrap().max(1e-6);
    f64::try_from((a - b).norm()).unwrap() <= tolerance * scale
}

#[test]
fn several_lanes_equal_the_same_lanes_one_by_one() {
    let job = job(3, 1);
    let mut together = engine(&job, &[0, 1, 2]);
    let all = together.step(&batch(&[0, 1, 2]), &ticket(5)).unwrap();
    let mut gradients: HashMap<String, Tensor> = HashMap::new();
    for lane in 0..3_u32 {
        let mut alone = engine(&job, &[lane]);
        let one = alone.step(&batch(&[lane]), &ticket(5)).unwrap();
        let index = lane as usize;
        assert!((one.lanes[0].loss - all.lanes[index].loss).abs() < 1e-5, "{one:?} {all:?}");
        assert_eq!(one.lanes[0].valid_regions, all.lanes[index].valid_regions);
        assert_eq!(one.lanes[0].mask_digest, all.lanes[index].mask_digest);
        for (name, gradient) in alone.gradients().unwrap() {
            let share = gradient / 3.0;
            let sum = match gradients.remove(&name) {
                Some(sum) => sum + share,
                None => share,
            };
            gradients.insert(name, sum);
        }
    }
    for (name, gradient) in together.gradients().unwrap() {
        // Biases that only shift the input of a norm have no gradient but rounding.
        let shifts = name.ends_with("fc1.bias") || name.ends_with("projector.fc2.bias");
        assert!(shifts || close(&gradient, &gradients[&name], 1e-3), "{name}");
    }
}

#[test]
fn memory_formats_differ_by_rounding() {
    let (job, lanes) = (job(1, 1), vec![0]);
    let outputs = [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast].map(|format| {
        let options = EngineOptions { job: job.clone(), device: Device::Cpu, lanes: lanes.clone(), threads: None };
        Engine::with_format(options, format).unwrap().step(&batch(&lanes), &ticket(0)).unwrap()
    });
    assert_eq!(outputs[0].lanes[0].mask_digest, outputs[1].lanes[0].mask_digest);
    assert!((outputs[0].lanes[0].loss - outputs[1].lanes[0].loss).abs() < 1e-5, "{outputs:?}");
    // Wider, for the sake of activations next to a ReLU's kink.
    assert!((outputs[0].gradient_norm / outputs[1].gradient_norm - 1.0).abs() < 1e-2, "{outputs:?}");
}

#[test]
fn a_lane_without_valid_regions_gives_nothing() {
    let mut engine = engine(&job(1, 1), &[0]);
    let mut batch = batch(&[0]);
    engine.job.method.validity_threshold = 1e6;
    batch.audit = false;
    let output = engine.step(&batch, &ticket(0)).unwrap();
    assert_eq!((output.lanes[0].loss, output.lanes[0].valid_regions), (0.0, 0.0));
    assert_eq!(output.gradient_norm, 0.0);
    assert_eq!(output.lanes[0].mask_digest, 0);
}

#[test]
fn a_step_that_fails_names_the_lane_and_leaves_no_trace() {
    let mut engine = engine(&job(2, 2), &[0, 1]);
    engine.step(&batch(&[0, 1]), &ticket(0)).unwrap();
    let before = engine.digest().unwrap();
    let bad = batch(&[0, 1]);
    let _filled = bad.boxes1.narrow(0, 0, 1).fill_(0.5);
    let _filled = bad.view1.narrow(0, IMAGES, 1).fill_(f64::NAN);
    // Statistics are shared, so every lane's loss is lost; with groups of one lane it would be the second only.
    let error = engine.step(&bad, &ticket(1)).unwrap_err();
    assert!(matches!(&error, StepError::NotFinite { step: 1, lane: Some(_), tensor } if tensor == "loss"), "{error}");
    assert_eq!(engine.digest().unwrap(), before);
    engine.step(&batch(&[0, 1]), &ticket(1)).unwrap();
    assert_ne!(engine.digest().unwrap(), before);
}

#[test]
fn the_lane_of_a_bad_value_is_named() {
    let mut engine = engine(&job(2, 1), &[0, 1]);
    let bad = batch(&[0, 1]);
    let _filled = bad.view2.narrow(0, IMAGES, 1).fill_(f64::INFINITY);
    let error = engine.step(&bad, &ticket(3)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "step 3, lane 1: `loss` is not finite; lower the learning rate, or look at the lane's samples"
    );
}

#[test]
fn more_clusters_than_regions_are_refused() {
    let mut engine = engine(&job(1, 1), &[0]);
    let error = engine.step(&batch(&[0]), &StepTicket { k: 28, ..ticket(2) }).unwrap_err();
    assert_eq!(error.to_string(), "step 2, lane 0: K = 28 is larger than the lane's 27 regions");
}

#[test]
fn a_batch_of_another_size_is_refused() {
    let mut engine = engine(&job(2, 2), &[0, 1]);
    let error = engine.step(&batch(&[0]), &ticket(0)).unwrap_err();
    assert_eq!(error.to_string(), "step 0: `raw` is [3, 3, 64, 64], expected [6, 3, 64, 64]");
}

#[test]
fn a_state_that_is_copied_out_and_loaded_goes_on_bit_by_bit() {
    let job = job(2, 2);
    let mut first = engine(&job, &[0, 1]);
    first.step(&batch(&[0, 1]), &ticket(0)).unwrap();
    let sizes = first.tensor_sizes();
    let names: Vec<&str> = sizes.iter().map(|(name, _)| name.as_str()).collect();
    let state = first.copy_out(&names).unwrap();
    assert!(
        state.iter().zip(&sizes).all(|(tensor, (name, bytes))| tensor.name == *name && tensor.bytes.len() == *bytes)
    );
    let mut second = engine(&job, &[0, 1]);
    assert_ne!(first.digest().unwrap(), second.digest().unwrap());
    second.load(state).unwrap();
    assert_eq!(first.digest().unwrap(), second.digest().unwrap());
    let outputs = [&mut first, &mut second].map(|engine| engine.step(&batch(&[0, 1]), &ticket(1)).unwrap());
    assert_eq!(outputs[0].lanes, outputs[1].lanes);
    assert_eq!(first.digest().unwrap(), second.digest().unwrap());
}

#[test]
fn a_copy_that_is_made_while_training_goes_on_is_of_the_state_before() {
    let job = job(2, 2);
    let mut engine = engine(&job, &[0, 1]);
    engine.step(&batch(&[0, 1]), &ticket(0)).unwrap();
    let names: Vec<String> = engine.tensor_sizes().into_iter().map(|(name, _)| name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let before = engine.copy_out(&names).unwrap();
    let copy = engine.begin_copy(&names).unwrap();
    let output = engine.step(&batch(&[0, 1]), &ticket(1)).unwrap();
    assert!(output.timings.iter().any(|(phase, _)| *phase == "checkpoint_hold"), "{:?}", output.timings);
    let mut copied = copy.wait().unwrap();
    copied.sort_by_key(|tensor| names.iter().position(|name| *name == tensor.name));
    assert!(copied == before, "the step is in the copy");
    assert!(engine.copy_out(&names).unwrap() != before, "the step changed nothing");
    // A copy that nobody waits for holds nobody for ever, and one of a state that goes is whole.
    drop(engine.begin_copy(&names).unwrap());
    let output = engine.step(&batch(&[0, 1]), &ticket(2)).unwrap();
    assert!(output.lanes.iter().all(|lane| lane.loss.is_finite()));
    let last = engine.begin_copy(&names).unwrap();
    drop(engine);
    assert_eq!(last.wait().unwrap().len(), names.len());
}

#[test]
fn weights_depend_on_the_seed_alone() {
    let (a, b) = (engine(&job(1, 1), &[0]), engine(&job(4, 2), &[2, 3]));
    assert_eq!(a.digest().unwrap(), b.digest().unwrap());
    let mut other = job(1, 1);
    other.seed = 8;
    assert_ne!(a.digest().unwrap(), engine(&other, &[0]).digest().unwrap());
}

#[test]
fn pictures_leave_no_trace() {
    let mut engine = engine(&job(1, 1), &[0]);
    let before = engine.digest().unwrap();
    let batch = batch(&[0]);
    let masks = engine.predict_masks(&batch.raw, &batch.prior, 4).unwrap();
    assert_eq!(masks.map.size(), [IMAGES, SIZE / 4, SIZE / 4]);
    assert_eq!(masks.count, 4);
    assert!(i64::try_from(masks.map.max()).unwrap() < 4);
    assert_eq!(engine.digest().unwrap(), before);
    // Beyond the clusters that K-means makes: the prior itself.
    let prior = engine.predict_masks(&batch.raw, &batch.prior, 500).unwrap();
    assert_eq!(prior.count, 9);
}

#[test]
fn a_state_that_does_not_fit_is_refused_by_name() {
    let mut engine = engine(&job(1, 1), &[0]);
    let state = || -> HashMap<String, Tensor> {
        let all = engine_state();
        all.into_iter().filter(|(name, _)| !name.starts_with("momentum.")).collect()
    };
    let before = engine.digest().unwrap();
    let mut refusal = |state: &HashMap<String, Tensor>| match engine.load_state(state) {
        Err(EngineError::State(error)) => error,
        other => panic!("{other:?}"),
    };

    let mut missing = state();
    missing.remove("target.backbone.layer4.1.bn2.bias");
    let error = refusal(&missing);
    assert!(matches!(&error, StateError::Missing { name } if name == "target.backbone.layer4.1.bn2.bias"), "{error}");

    let mut unknown = state();
    unknown.insert("online.backbone.fc.weight".to_owned(), Tensor::zeros([1], CPU));
    assert!(matches!(refusal(&unknown), StateError::Unknown { name } if name == "online.backbone.fc.weight"));

    let mut misshapen = state();
    misshapen.insert("predictor.bn.bias".to_owned(), Tensor::zeros([15], CPU));
    let error = refusal(&misshapen);
    assert_eq!(error.to_string(), "`predictor.bn.bias` is [15] in the state but [16] in the job's model");

    let mut half = state();
    half.insert("predictor.bn.bias".to_owned(), Tensor::zeros([16], (Kind::Half, Device::Cpu)));
    assert!(matches!(refusal(&half), StateError::Type { .. }));

    let mut some_momentum = state();
    some_momentum.insert("momentum.predictor.bn.bias".to_owned(), Tensor::zeros([16], CPU));
    assert!(matches!(refusal(&some_momentum), StateError::Missing { name } if name.starts_with("momentum.")));

    assert_eq!(engine.digest().unwrap(), before);
    let mut counted = state();
    counted.insert("online.backbone.bn1.num_batches_tracked".to_owned(), Tensor::zeros([], (Kind::Int64, Device::Cpu)));
    engine.load_state(&counted).unwrap();
    assert_eq!(engine.digest().unwrap(), before);
}

fn engine_state() -> Vec<(String, Tensor)> {
    engine(&job(1, 1), &[0]).state()
}

/// Priors with different numbers of regions, mask prediction off: all lanes have as many rows.
#[test]
fn the_prior_as_masks() {
    let mut job = job(2, 2);
    job.method.mask_prediction.enabled = false;
    let mut engine = engine(&job, &[0, 1]);
    let output = engine.step(&batch(&[0, 1]), &ticket(0)).unwrap();
    assert!(output.lanes.iter().all(|lane| lane.loss > 0.0));
    assert!(output.lanes.iter().all(|lane| (1.0..=10.0).contains(&lane.valid_regions)), "{output:?}");
}

#[test]
fn a_flipped_bit_changes_the_hash_of_its_tensor_alone() {
    let mut engine = engine(&job(1, 1), &[0]);
    let before = engine.digests().unwrap();
    assert_eq!(engine.digests().unwrap(), before);
    engine.flip_bit().unwrap();
    let after = engine.digests().unwrap();
    let changed: Vec<&str> = before.iter().zip(&after).filter(|(a, b)| a != b).map(|(a, _)| a.0.as_str()).collect();
    assert_eq!(changed, [before[0].0.as_str()]);
}

#[test]
fn what_warmed_up_computes_what_a_cold_engine_does() {
    let job = job(2, 2);
    let mut cold = engine(&job, &[0, 1]);
    let options = EngineOptions { job, device: Device::Cpu, lanes: Vec::new(), threads: None };
    let mut warm = Engine::blank(options).unwrap();
    warm.warm_up().unwrap();
    warm.reset().unwrap();
    warm.take_lanes(vec![0, 1]);
    let [cold_lanes, warm_lanes] =
        [&mut cold, &mut warm].map(|engine| engine.step(&batch(&[0, 1]), &ticket(0)).unwrap().lanes);
    assert_eq!(cold_lanes, warm_lanes);
    assert_eq!(cold.digest().unwrap(), warm.digest().unwrap());
}

#[test]
fn levels_are_normalised_as_the_loader_does() {
    use r2o_types::Dtype;
    use r2o_types::pixels::{DEVIATION, MEAN};
    let (n, plane) = (IMAGES as usize, (SIZE * SIZE) as usize);
    let level = |at: usize| (at * 7919 / 64 % 256) as u8;
    let levels: Vec<u8> = (0..3 * n * plane).map(level).collect();
    let number = |(at, &level): (usize, &u8)| {
        let channel = at / plane % 3;
        f32::from(level) * (1.0 / (255.0 * DEVIATION[channel])) + -MEAN[channel] / DEVIATION[channel]
    };
    let numbers: Vec<f32> = levels.iter().enumerate().map(number).collect();
    let value = (numbers[plane] * DEVIATION[1] + MEAN[1]) * 255.0;
    assert!((value - f32::from(levels[plane])).abs() < 1e-3, "{value}");
    let prior: Vec<u8> = (0..n * plane).map(|at| (at % plane * 9 / plane) as u8).collect();
    let numbers: Vec<u8> = numbers.iter().flat_map(|value| value.to_ne_bytes()).collect();
    let outcome = |dtype, pixels: &[u8]| {
        let batch = HostBatch {
            images: n,
            size: SIZE as usize,
            dtype,
            raw: pixels,
            view1: pixels,
            view2: pixels,
            prior: &prior,
            boxes1: &[0.0, 0.0, 0.5, 0.5].repeat(n),
            boxes2: &[0.0, 0.0, 1.0, 1.0].repeat(n),
            flips1: &vec![false; n],
            flips2: &vec![true; n],
            audit: true,
            words: &[],
        };
        let mut engine = engine(&job(1, 1), &[0]);
        let output = engine.step_host(&batch, &ticket(0)).unwrap();
        (output.lanes, engine.digest().unwrap())
    };
    assert_eq!(outcome(Dtype::Uint8, &levels), outcome(Dtype::Float32, &numbers));
}

#[test]
fn images_in_bfloat16_are_what_autocast_makes_of_float32() {
    let mut job = job(1, 1);
    job.precision = r2o_types::Precision::Bfloat16;
    let outcomes = [Kind::Float, Kind::BFloat16].map(|kind| {
        let mut engine = engine(&job, &[0]);
        let mut batch = batch(&[0]);
        for view in [&mut batch.raw, &mut batch.view1, &mut batch.view2] {
            *view = view.to_kind(kind);
        }
        let output = engine.step(&batch, &ticket(0)).unwrap();
        (output.lanes, output.gradient_norm.to_bits(), engine.digest().unwrap())
    });
    assert_eq!(outcomes[0], outcomes[1]);
    let mut batch = batch(&[0]);
    batch.raw = batch.raw.to_kind(Kind::BFloat16);
    let refused = engine(&self::job(1, 1), &[0]).step(&batch, &ticket(0)).unwrap_err();
    assert!(refused.to_string().contains("raw"), "{refused}");
}
