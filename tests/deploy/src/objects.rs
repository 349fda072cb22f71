//! Rendered objects as data.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

/// `KIND/NAME` of an object.
#[must_use]
pub fn name(object: &Value) -> String {
    format!("{}/{}", object["kind"].as_str().unwrap_or("?"), object["metadata"]["name"].as_str().unwrap_or("?"))
}

/// The pod that an object is or makes: its metadata and spec.
#[must_use]
pub fn pod(object: &Value) -> Option<&Value> {
    match object["kind"].as_str()? {
        "Pod" => Some(object),
        "StatefulSet" | "Job" | "Deployment" | "DaemonSet" => Some(&object["spec"]["template"]),
        _ => None,
    }
}

/// All containers of a pod.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().filter_map(|list| pod["spec"][list].as_array()).flatten()
}

/// Shows `look` every value of a tree with its path.
pub fn each<'a>(value: &'a Value, path: &str, look: &mut impl FnMut(&str, &'a Value)) {
    look(path, value);
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, field)| each(field, &format!("{path}.{key}"), look));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| each(item, &format!("{path}[{index}]"), look));
        }
        _ => {}
    }
}

/// The text of a Secret's value; empty where there is none.
#[must_use]
pub fn decoded(value: &Value) -> String {
    let bytes = BASE64_STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}
