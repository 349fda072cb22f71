//! What holds of every object that the chart renders, whatever the values.

use anyhow::Result;
use r2o_test_deploy::{Helm, NEEDS, Release, containers, each, name, pod, values_files};
use r2o_test_kit::not_run;
use serde_json::{Value, json};

/// The name of a file of values, and the objects that come of it.
type Rendered = (String, Vec<Value>);

/// All example values, rendered.
fn rendered() -> Result<Option<Vec<Rendered>>> {
    let mut all = Vec::new();
    for values in values_files()? {
        let release = Release::on("1.30").values(&values).with(&Release::OPERATOR);
        let Some(objects) = release.objects(Helm::Four)? else {
            not_run(NEEDS);
            return Ok(None);
        };
        let file = values.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        all.push((file, objects));
    }
    Ok(Some(all))
}

/// What the restricted Pod Security Standard forbids, and more: the root file system is read-only.
fn unrestricted(pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let mut found = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    must(spec["securityContext"]["runAsNonRoot"] == true, "runAsNonRoot");
    must(spec["securityContext"]["runAsUser"] == 65532, "runAsUser");
    must(spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "seccompProfile");
    must(spec["automountServiceAccountToken"] == false, "automountServiceAccountToken");
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        must(spec[host].is_null(), host);
    }
    for container in containers(pod) {
        let security = &container["securityContext"];
        must(security["allowPrivilegeEscalation"] == false, "allowPrivilegeEscalation");
        must(security["readOnlyRootFilesystem"] == true, "readOnlyRootFilesystem");
        must(security["capabilities"]["drop"] == json!(["ALL"]), "capabilities");
        must(security["privileged"].is_null() && security["capabilities"]["add"].is_null(), "privileged");
        must(container["resources"]["requests"]["memory"].is_string(), "resources");
    }
    found
}

#[test]
fn every_pod_is_restricted() -> Result<()> {
    let Some(all) = rendered()? else { return Ok(()) };
    let mut pods = 0;
    for (file, objects) in &all {
        for object in objects {
            let Some(pod) = pod(object) else { continue };
            pods += 1;
            assert_eq!(unrestricted(pod), Vec::<String>::new(), "{file}: {}", name(object));
            assert!(containers(pod).count() > 0, "{file}: {}", name(object));
        }
    }
    assert!(pods >= 3 * all.len(), "coordinator, workers and test of each");
    Ok(())
}

#[test]
fn an_unrestricted_pod_is_found() {
    let pod = json!({"spec": {"hostNetwork": true, "containers": [{"securityContext": {"privileged": true}}]}});
    assert!(unrestricted(&pod).len() > 8);
}

#[test]
fn every_port_names_its_protocol() -> Result<()> {
    let Some(all) = rendered()? else { return Ok(()) };
    for (file, objects) in &all {
        for object in objects {
            let policy = object["kind"] == "NetworkPolicy";
            each(object, "", &mut |path, value| {
                let is_list = path.ends_with(".ports") && value.is_array();
                for port in value.as_array().into_iter().flatten().filter(|_| is_list) {
                    // Only names are asked over UDP.
                    let udp = policy && port["protocol"] == "UDP" && port["port"] == 53;
                    assert!(port["protocol"] == "TCP" || udp, "{file}: {}{path}: {port}", name(object));
                }
            });
        }
    }
    Ok(())
}

#[test]
fn no_secret_is_in_anything_but_secrets() -> Result<()> {
    let Some(all) = rendered()? else { return Ok(()) };
    let mut secrets = 0;
    for (file, objects) in &all {
        let values: Vec<&str> = objects
            .iter()
            .filter(|object| object["kind"] == "Secret")
            .flat_map(|secret| secret["data"].as_object().into_iter().flatten())
            .filter(|(key, _)| !matches!(key.as_str(), "ca.crt" | "tls.crt"))
            .filter_map(|(_, value)| value.as_str())
            .collect();
        secrets += values.len();
        for object in objects.iter().filter(|object| object["kind"] != "Secret") {
            let text = object.to_string();
            assert!(!values.iter().any(|value| text.contains(value)), "{file}: {} tells a secret", name(object));
            // Nor is one given as an environment variable's text.
            let Some(pod) = pod(object) else { continue };
            for variable in containers(pod).flat_map(|one| one["env"].as_array().into_iter().flatten()) {
                let key = variable["name"].as_str().unwrap_or_default();
                let secret = ["SECRET", "PASSWORD", "_KEY_ID"].iter().any(|word| key.contains(word));
                assert!(!secret || variable["value"].is_null(), "{file}: {}: {key}", name(object));
            }
        }
    }
    assert!(secrets >= 10, "{secrets}");
    Ok(())
}

fn matches(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object();
    wanted.is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value))
}

#[test]
fn selectors_match_what_they_are_for() -> Result<()> {
    let Some(all) = rendered()? else { return Ok(()) };
    for (file, objects) in &all {
        let pods: Vec<&Value> = objects.iter().filter_map(pod).map(|pod| &pod["metadata"]["labels"]).collect();
        let services = || objects.iter().filter(|object| object["kind"] == "Service");
        for object in objects {
            let place = format!("{file}: {}", name(object));
            let spec = &object["spec"];
            match object["kind"].as_str().unwrap_or_default() {
                "StatefulSet" => {
                    assert!(
                        matches(&spec["selector"]["matchLabels"], &spec["template"]["metadata"]["labels"]),
                        "{place}"
                    );
                    let service = spec["serviceName"].as_str().unwrap_or_default();
                    assert!(services().any(|object| object["metadata"]["name"] == service), "{place}");
                }
                "Service" => {
                    assert_eq!(pods.iter().filter(|labels| matches(&spec["selector"], labels)).count(), 1, "{place}");
                }
                "PodDisruptionBudget" | "PodMonitor" => {
                    let selector = &spec["selector"]["matchLabels"];
                    assert_eq!(pods.iter().filter(|labels| matches(selector, labels)).count(), 1, "{place}");
                }
                "ServiceMonitor" => {
                    let selector = &spec["selector"]["matchLabels"];
                    let found = services().filter(|object| matches(selector, &object["metadata"]["labels"])).count();
                    assert_eq!(found, 1, "{place}");
                }
                "NetworkPolicy" => {
                    let selector = &spec["podSelector"]["matchLabels"];
                    assert!(pods.iter().any(|labels| matches(selector, labels)), "{place}");
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn find<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    objects.iter().find(|object| name(object) == wanted).unwrap_or(&Value::Null)
}

#[test]
fn a_worker_has_time_to_drain() -> Result<()> {
    let Some(all) = rendered()? else { return Ok(()) };
    for (file, objects) in &all {
        let spec = &find(objects, "StatefulSet/r2o-worker")["spec"]["template"]["spec"];
        let arguments = spec["containers"][0]["args"].as_array().cloned().unwrap_or_default();
        let deadline = arguments.iter().find_map(|argument| argument.as_str()?.strip_prefix("--drain-deadline="));
        let deadline: u64 = deadline.unwrap_or_default().parse()?;
        assert_eq!(spec["terminationGracePeriodSeconds"], deadline + 5, "{file}");
    }
    Ok(())
}

#[test]
fn traces_go_where_the_values_say_and_the_network_lets_them() -> Result<()> {
    let Some(all) = rendered()? else { return Ok(()) };
    for (file, objects) in &all {
        let monitored = file == "monitoring";
        for part in ["coordinator", "worker"] {
            let spec = &find(objects, &format!("StatefulSet/r2o-{part}"))["spec"]["template"]["spec"];
            let given = spec["containers"][0]["env"].as_array().cloned().unwrap_or_default();
            let find = |name: &str| given.iter().find(|variable| variable["name"] == name).cloned().unwrap_or_default();
            let endpoint = if monitored { json!("http://collector.monitoring:4317") } else { Value::Null };
            assert_eq!(find("OTEL_EXPORTER_OTLP_ENDPOINT")["value"], endpoint, "{file}: {part}");
            let (ratio, secret) = if monitored { (json!("0.1"), json!("collector-token")) } else { Default::default() };
            assert_eq!(find("OTEL_TRACES_SAMPLER_ARG")["value"], ratio, "{file}: {part}");
            let headers = find("OTEL_EXPORTER_OTLP_HEADERS");
            assert_eq!(headers["valueFrom"]["secretKeyRef"]["name"], secret, "{file}: {part}");
            assert_eq!(find("R2O_LOG_FORMAT")["value"], "json", "{file}: {part}");
        }
        let egress = &find(objects, "NetworkPolicy/r2o-egress")["spec"]["egress"];
        let rules = egress.as_array().cloned().unwrap_or_default();
        let open = rules.iter().flat_map(|rule| rule["ports"].as_array().into_iter().flatten());
        assert_eq!(open.filter(|port| port["port"] == 4317).count(), usize::from(monitored), "{file}");
    }
    Ok(())
}

#[test]
fn the_receivers_port_is_let_through_whatever_its_host_is_called() -> Result<()> {
    for (endpoint, port) in [("http://node1", 4317), ("https://node1:55680/", 55680)] {
        let release = Release::on("1.30").set(&format!("telemetry.endpoint={endpoint}"));
        let Some(objects) = release.objects(Helm::Four)? else {
            not_run(NEEDS);
            return Ok(());
        };
        let egress = find(&objects, "NetworkPolicy/r2o-egress")["spec"]["egress"].to_string();
        assert!(egress.contains(&format!("\"port\":{port},")), "{endpoint}: {egress}");
    }
    Ok(())
}

#[test]
fn a_gpu_worker_asks_for_one_gpu_and_keeps_its_limits() -> Result<()> {
    let Some(all) = rendered()? else { return Ok(()) };
    for (file, objects) in &all {
        let spec = &find(objects, "StatefulSet/r2o-worker")["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        let (gpu, image) = if file == "gpu-spot" { (json!(1), "worker-cuda") } else { (Value::Null, "worker-cpu") };
        assert_eq!(container["resources"]["limits"]["nvidia.com/gpu"], gpu, "{file}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{file}");
        assert!(container["image"].as_str().unwrap_or_default().contains(image), "{file}");
    }
    Ok(())
}

#[test]
fn probes_speak_grpc_unless_tls_or_an_old_cluster_forbids() -> Result<()> {
    for (version, mode, grpc) in [("1.30", "none", true), ("1.30", "generated", false), ("1.20", "none", false)] {
        let release = Release::on(version).set(&format!("tls.mode={mode}"));
        let Some(objects) = release.objects(Helm::Four)? else {
            not_run(NEEDS);
            return Ok(());
        };
        let container = &find(&objects, "StatefulSet/r2o-coordinator")["spec"]["template"]["spec"]["containers"][0];
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["grpc"]["port"] == 7070, grpc, "{version} {mode} {probe}");
            let scheme = if mode == "none" { "HTTP" } else { "HTTPS" };
            assert_eq!(container[probe]["httpGet"]["scheme"] == scheme, !grpc, "{version} {mode} {probe}");
        }
    }
    Ok(())
}

#[test]
fn monitors_are_there_where_the_cluster_knows_them() -> Result<()> {
    for (kinds, there) in [(&Release::OPERATOR[..], true), (&[][..], false)] {
        let Some(objects) = Release::on("1.30").with(kinds).objects(Helm::Four)? else {
            not_run(NEEDS);
            return Ok(());
        };
        for kind in ["ServiceMonitor/r2o-coordinator", "PodMonitor/r2o-worker"] {
            assert_eq!(find(&objects, kind).is_object(), there, "{kind}");
        }
        // Its rules are the copy of those under deploy/prometheus, if there are any.
        let rules = r2o_test_deploy::chart().join("files/alerts.yaml").is_file();
        assert_eq!(find(&objects, "PrometheusRule/r2o").is_object(), there && rules);
        let dashboards = r2o_test_deploy::chart().join("files/dashboards");
        let dashboards = std::fs::read_dir(dashboards).map_or(0, Iterator::count);
        let maps = objects.iter().filter(|object| object["metadata"]["labels"]["grafana_dashboard"] == "1");
        assert_eq!(maps.count(), dashboards);
    }
    Ok(())
}

#[test]
fn generated_certificates_and_tokens_belong_together() -> Result<()> {
    let Some(all) = rendered()? else { return Ok(()) };
    let Some((_, objects)) = all.iter().find(|(file, _)| file == "tls-generated") else { panic!("no such values") };
    let [server, client] = ["Secret/r2o-tls", "Secret/r2o-client-tls"].map(|name| &find(objects, name)["data"]);
    assert_eq!(server["ca.crt"], client["ca.crt"]);
    assert_ne!(server["tls.key"], client["tls.key"]);
    let tokens = &find(objects, "Secret/r2o-tokens")["data"];
    for role in ["tokens", "worker", "reader", "submitter", "admin"] {
        assert!(tokens[role].as_str().is_some_and(|token| token.len() >= 64), "{role}");
    }
    Ok(())
}
