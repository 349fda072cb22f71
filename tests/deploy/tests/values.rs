//! Values that make no sense are refused with what is wrong.

use anyhow::Result;
use r2o_test_deploy::{Helm, NEEDS, Release};
use r2o_test_kit::not_run;

/// Values, and what both Helms' messages name.
const REFUSED: &[(&[&str], &[&str])] = &[
    (&["workers.replicas=-1"], &["replicas", "0"]),
    (&["workers.threds=2"], &["workers", "threds", "not allowed"]),
    (&["workers.shm=lots"], &["shm", "pattern"]),
    (&["workers.device=tpu"], &["device", "cpu", "cuda"]),
    (&["workers.drainDeadline=0"], &["drainDeadline", "1"]),
    (&["workers.cacheBytes=-1"], &["cacheBytes", "0"]),
    (&["workers.cacheBytes=1", "workers.cacheDir=cache"], &["cacheDir", "pattern"]),
    (&["service.grpc=70000"], &["grpc", "535"]),
    (&["service.grpc=7071"], &["service.grpc and service.http are both 7071"]),
    (&["tls.mode=off"], &["mode", "generated", "certManager", "secret", "none"]),
    (&["tls.mode=false"], &["mode", "generated"]),
    (&["tls.mode=secret"], &["tls.mode is secret: name the Secret", "tls.secret.server"]),
    (&["tls.mode=secret", "tls.secret.server=x", "tls.clients=true"], &["tls.secret.client"]),
    (&["tls.mode=none", "tls.clients=true"], &["clients cannot show certificates without TLS"]),
    (&["tls.mode=none", "service.type=LoadBalancer"], &["tokens would leave the cluster in the clear"]),
    (&["tokens.mode=secret"], &["tokens.mode is secret: name the Secret in tokens.secret"]),
    (&["state.kind=url"], &["state.url is empty: name an object store"]),
    (&["state.url=s3://bucket"], &["state.url is s3://bucket but state.kind is shared"]),
    (&["state.kind=url", "state.url=/tmp"], &["url", "pattern"]),
    (&["state.volume.claim=a", "state.volume.hostPath=/b"], &["choose one"]),
    (&["storage.env.AWS_SECRET_ACCESS_KEY=x"], &["storage.env.AWS_SECRET_ACCESS_KEY is a secret", "storage.secret"]),
    (&["storage.env.PATH=x"], &["env", "PATH", "not allowed"]),
    (&["jobs.demo.spec.epochs=3"], &["jobs.demo.spec.data.url is missing"]),
    (&["jobs.Demo.spec.data.url=x"], &["jobs", "Demo", "not allowed"]),
    (&["telemetry.ratio=2"], &["ratio", "1"]),
    (&["telemetry.endpoint=collector:4317"], &["endpoint", "pattern"]),
    (&["networkPolicy.storageCidrs={everywhere}"], &["storageCidrs", "pattern"]),
    (&["disruptionBudget.workers=half"], &["disruptionBudget"]),
    (&["unknown=1"], &["unknown", "not allowed"]),
];

#[test]
fn nonsense_is_refused_by_name() -> Result<()> {
    for helm in Helm::ALL {
        for (values, named) in REFUSED {
            let release = values.iter().fold(Release::on("1.30"), |release, value| release.set(value));
            let message = match release.text(helm) {
                Ok(None) => {
                    not_run(NEEDS);
                    return Ok(());
                }
                Ok(Some(_)) => panic!("Helm {helm:?} takes {values:?}"),
                Err(error) => error.to_string(),
            };
            for word in *named {
                assert!(message.contains(word), "Helm {helm:?}, {values:?}: `{word}` is not in\n{message}");
            }
        }
    }
    Ok(())
}
