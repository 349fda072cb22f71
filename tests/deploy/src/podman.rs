//! Rendered pods as containers of this machine: `podman play kube` in the place of a cluster.
//!
//! It knows pods, but no controller, name service or Service. So the pods of a StatefulSet or Job are written out, and
//! what a kubelet would fill in (a pod's address, the address behind a Service's name) is filled in here. Secrets become
//! ConfigMaps of the same content, because Podman 4.3 does not decode them; a cluster's test has the real ones.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, bail};
use r2o_test_kit::repository;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::objects::{self, decoded, pod};

/// What the tests of containers need.
pub const NEEDS: &str = "needs podman, root, and images (deploy/test/images.sh)";

/// Pods on a network of their own. Dropping it removes them.
#[derive(Debug)]
pub struct Podman {
    network: String,
    subnet: u8,
    pods: Vec<String>,
    folder: TempDir,
}

impl Podman {
    /// A network without pods; `None` when Podman or one of the images is not there.
    ///
    /// # Errors
    /// When the network cannot be made.
    pub fn start(images: &[&str]) -> Result<Option<Self>> {
        let present = |image: &&str| output(&["image", "exists", image]).is_ok_and(|output| output.status.success());
        if !is_root() || !images.iter().all(present) {
            return Ok(None);
        }
        let number = std::process::id();
        let network = format!("r2o-test-{number}");
        // From 1 to 200, and what another network has is refused by name.
        let subnet = u8::try_from(number % 200)? + 1;
        run(&["network", "create", "--subnet", &format!("10.97.{subnet}.0/24"), &network])?;
        Ok(Some(Self { network, subnet, pods: Vec::new(), folder: tempfile::tempdir()? }))
    }

    /// The address of the pod with a number, from 2 on.
    #[must_use]
    pub fn address(&self, number: u8) -> String {
        format!("10.97.{}.{number}", self.subnet)
    }

    /// Plays the pod that `object` is or makes, under `name` and at an address, with the ConfigMaps and Secrets of
    /// `release`. `hosts` are names and addresses that it can look up.
    ///
    /// # Errors
    /// With Podman's message.
    pub fn play(
        &mut self,
        release: &[Value],
        object: &Value,
        name: &str,
        address: &str,
        hosts: &[(&str, &str)],
    ) -> Result<()> {
        let template = pod(object).with_context(|| format!("{} makes no pod", objects::name(object)))?;
        let mut documents: Vec<Value> = release.iter().filter_map(map).collect();
        documents.push(written_out(template, name, address, hosts));
        let text: Vec<String> = documents.iter().map(ToString::to_string).collect();
        let file = self.folder.path().join(format!("{name}.yaml"));
        fs::write(&file, text.join("\n---\n"))?;
        self.pods.push(name.to_owned());
        let file = file.display().to_string();
        run(&["play", "kube", "--network", &self.network, "--ip", address, &file])
            .with_context(|| format!("cannot play {name}"))?;
        Ok(())
    }

    /// What all containers of all pods wrote.
    ///
    /// # Errors
    /// When Podman cannot be asked.
    pub fn logs(&self) -> Result<String> {
        let mut all = String::new();
        for pod in &self.pods {
            let output = output(&["pod", "logs", pod])?;
            all += &format!("== {pod}\n");
            all += &String::from_utf8_lossy(&output.stdout);
            all += &String::from_utf8_lossy(&output.stderr);
        }
        Ok(all)
    }

    /// The exit codes of a pod's containers, once all have ended.
    ///
    /// # Errors
    /// When Podman cannot be asked.
    pub fn ended(&self, pod: &str) -> Result<Option<Vec<i64>>> {
        let filter = format!("pod={pod}");
        let text = run(&["ps", "--all", "--filter", &filter, "--format", "json"])?;
        let containers: Vec<Value> = serde_json::from_str(&text).context("podman ps printed no JSON")?;
        let mut codes = Vec::new();
        for container in containers.iter().filter(|container| container["IsInfra"] != true) {
            if container["Exited"] != true {
                return Ok(None);
            }
            codes.push(container["ExitCode"].as_i64().unwrap_or(-1));
        }
        Ok((!codes.is_empty()).then_some(codes))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for pod in &self.pods {
            let _ = output(&["pod", "rm", "--force", "--time", "5", pod]);
        }
        let _ = output(&["network", "rm", "--force", &self.network]);
    }
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:") && line.split('\t').nth(2) == Some("0")))
}

fn output(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new("podman");
    if env::var_os("CONTAINERS_CONF").is_none() {
        let configuration: PathBuf = repository().join("deploy/test/containers.conf");
        command.env("CONTAINERS_CONF", configuration);
    }
    command.args(arguments).output().context("cannot run podman")
}

fn run(arguments: &[&str]) -> Result<String> {
    let output = output(arguments)?;
    if !output.status.success() {
        bail!("podman {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A ConfigMap, or a Secret as one.
fn map(object: &Value) -> Option<Value> {
    match object["kind"].as_str()? {
        "ConfigMap" => Some(object.clone()),
        "Secret" => {
            let data = object["data"].as_object()?;
            let plain = data.iter().map(|(key, value)| (key.clone(), decoded(value).into()));
            let data: serde_json::Map<String, Value> = plain.collect();
            Some(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": object["metadata"]["name"]}, "data": data,
            }))
        }
        _ => None,
    }
}

/// The pod of a template, with what a controller and a kubelet fill in.
fn written_out(template: &Value, name: &str, address: &str, hosts: &[(&str, &str)]) -> Value {
    let mut spec = template["spec"].clone();
    let aliases: Vec<Value> = hosts.iter().map(|(host, ip)| json!({"ip": ip, "hostnames": [host]})).collect();
    spec["hostAliases"] = aliases.into();
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        // Ports would be published on the machine, and probes want systemd.
        for field in ["ports", "startupProbe", "livenessProbe", "readinessProbe"] {
            container.as_object_mut().map(|container| container.remove(field));
        }
        for variable in container["env"].as_array_mut().into_iter().flatten() {
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("status.podIP") => address,
                Some("metadata.name") => name,
                _ => continue,
            };
            *variable = json!({"name": variable["name"], "value": value});
        }
    }
    for volume in spec["volumes"].as_array_mut().into_iter().flatten() {
        if volume["secret"].is_object() {
            let secret = volume["secret"].clone();
            let source = json!({"name": secret["secretName"], "items": secret["items"], "optional": false});
            *volume = json!({"name": volume["name"], "configMap": source});
        }
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": template["metadata"]["labels"]}, "spec": spec,
    })
}

/// Copies a folder's files for the user that containers run as.
///
/// # Errors
/// When a file cannot be copied.
pub fn hand_over(from: &Path, to: &Path) -> Result<()> {
    const USER: u32 = 65532;
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    std::os::unix::fs::chown(to, Some(USER), Some(USER))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("an entry has a name")?);
        if path.is_dir() {
            hand_over(&path, &target)?;
        } else {
            fs::copy(&path, &target).with_context(|| format!("cannot copy {}", path.display()))?;
            std::os::unix::fs::chown(&target, Some(USER), Some(USER))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::name;

    #[test]
    fn secrets_become_readable_maps() {
        let secret = json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "aGVsbG8=", "b": "aGkhCg=="}});
        assert_eq!(map(&secret).unwrap()["data"], json!({"a": "hello", "b": "hi!\n"}));
    }

    #[test]
    fn a_template_becomes_a_pod_with_its_address() {
        let template = json!({"spec": {"containers": [{
            "ports": [{"containerPort": 1}],
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        }]}});
        let pod = written_out(&template, "x-0", "10.0.0.2", &[("c", "10.0.0.3")]);
        assert_eq!(name(&pod), "Pod/x-0");
        assert_eq!(pod["spec"]["containers"][0], json!({"env": [{"name": "IP", "value": "10.0.0.2"}]}));
        assert_eq!(pod["spec"]["hostAliases"][0]["hostnames"], json!(["c"]));
    }
}
