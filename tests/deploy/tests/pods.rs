//! The rendered chart trains a job to its end: coordinator and two workers in containers, TLS and tokens as the chart
//! makes them, the job submitted by the release.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use r2o_test_deploy::{Helm, NEEDS, PODMAN_NEEDS, Podman, Release, decoded, hand_over, name};
use r2o_test_kit::{binary, not_run, packed_photos, repository, wait_until};
use serde_json::{Value, json};

const IMAGES: [&str; 2] = ["localhost/r2o/coordinator:0.1.0", "localhost/r2o/worker-cpu:0.1.0"];

/// The demo's job, smaller and shorter.
fn job() -> Result<Value> {
    let text = fs::read_to_string(repository().join("deploy/jobs/demo.yaml"))?;
    let mut job: Value = serde_saphyr::from_str(&text).context("the demo's job is no YAML")?;
    job["spec"]["epochs"] = 2.into();
    job["spec"]["data"]["imageSize"] = 64.into();
    job["spec"]["batch"]["samplesPerLane"] = 4.into();
    job["spec"]["method"]["curriculum"]["epochs"] = json!([0, 2]);
    job["spec"]["data"]["url"] = "file:///state/data".into();
    job["spec"]["fleet"]["minWorkers"] = 2.into();
    Ok(job["spec"].clone())
}

fn find<'a>(objects: &'a [Value], wanted: &str) -> Result<&'a Value> {
    objects.iter().find(|object| name(object) == wanted).with_context(|| format!("the chart has no {wanted}"))
}

/// Asks the coordinator as a person with a token and the CA does.
struct Client {
    environment: BTreeMap<&'static str, String>,
}

impl Client {
    fn new(objects: &[Value], address: &str, folder: &Path) -> Result<Self> {
        let (ca, token) = (folder.join("ca.crt"), folder.join("token"));
        fs::write(&ca, decoded(&find(objects, "Secret/r2o-tls")?["data"]["ca.crt"]))?;
        fs::write(&token, decoded(&find(objects, "Secret/r2o-tokens")?["data"]["reader"]))?;
        Ok(Self {
            environment: BTreeMap::from([
                ("R2O_COORDINATOR", format!("https://{address}:7070")),
                ("R2O_TLS_CA", ca.display().to_string()),
                ("R2O_TOKEN_FILE", token.display().to_string()),
            ]),
        })
    }

    fn ask(&self, words: &[&str]) -> Result<Option<Value>> {
        let output = Command::new(binary("r2octl")?).args(words).args(["-o", "json"]).envs(&self.environment).output();
        let output = output.context("cannot run r2octl")?;
        Ok(output.status.success().then(|| serde_json::from_slice(&output.stdout)).transpose()?)
    }
}

async fn trains(podman: &mut Podman, objects: &[Value], client: &Client) -> Result<()> {
    let coordinator = podman.address(10);
    let hosts = [("r2o-coordinator", coordinator.as_str())];
    let minutes = |count: u64| Duration::from_secs(60 * count);
    podman.play(objects, find(objects, "StatefulSet/r2o-coordinator")?, "r2o-coordinator-0", &coordinator, &[])?;
    wait_until("the coordinator serves", minutes(2), || async { client.ask(&["list"]) }).await?;

    let submit = podman.address(20);
    podman.play(objects, find(objects, "Job/r2o-submit")?, "r2o-submit-x", &submit, &hosts)?;
    wait_until("the job is there", minutes(2), || async { client.ask(&["get", "demo"]) }).await?;

    let workers = find(objects, "StatefulSet/r2o-worker")?;
    for index in 0..2 {
        let address = podman.address(11 + index);
        podman.play(objects, workers, &format!("r2o-worker-{index}"), &address, &hosts)?;
    }
    wait_until("the job succeeds", minutes(6), || async {
        let job = client.ask(&["get", "demo"])?.unwrap_or_default();
        anyhow::ensure!(job["state"] != "Failed", "the job failed: {job}");
        Ok((job["state"] == "Succeeded").then_some(()))
    })
    .await?;

    let test = podman.address(21);
    podman.play(objects, find(objects, "Pod/r2o-test")?, "r2o-test", &test, &hosts)?;
    let codes = wait_until("the release's test ends", minutes(1), || async { podman.ended("r2o-test") }).await?;
    assert_eq!(codes, [0, 0], "the release's test");
    Ok(())
}

#[tokio::test]
async fn the_chart_trains_a_job_to_its_end() -> Result<()> {
    let Some(mut podman) = Podman::start(&IMAGES)? else {
        not_run(PODMAN_NEEDS);
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state");
    hand_over(&packed_photos()?, &state.join("data"))?;
    std::os::unix::fs::chown(&state, Some(65532), Some(65532))?;
    // Others may enter the folder above.
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;

    let values = folder.path().join("values.json");
    let given = json!({
        "state": {"volume": {"hostPath": state.display().to_string()}},
        "tls": {"names": [podman.address(10)]},
        "coordinator": {"workerLease": 10},
        "workers": {"threads": 1},
        "jobs": {"demo": {"spec": job()?}},
    });
    fs::write(&values, given.to_string())?;
    let Some(objects) = Release::on("1.30").values(&values).objects(Helm::Four)? else {
        not_run(NEEDS);
        return Ok(());
    };
    let client = Client::new(&objects, &podman.address(10), folder.path())?;
    let result = trains(&mut podman, &objects, &client).await;
    let logs = podman.logs()?;
    result.with_context(|| format!("what the pods wrote:\n{logs}"))?;

    assert!(state.join("jobs/demo").is_dir(), "the results are on the volume");
    for (secret, key) in [("r2o-tokens", "worker"), ("r2o-tokens", "submitter"), ("r2o-tls", "tls.key")] {
        let text = decoded(&find(&objects, &format!("Secret/{secret}"))?["data"][key]);
        let line = text.lines().nth(1).unwrap_or(&text);
        assert!(line.len() > 40 && !logs.contains(line), "{secret}/{key} is in the logs");
    }
    Ok(())
}
