//! From a URL to a [`Store`].

use std::path::{Component, Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::ClientConfigKey;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use crate::{StorageError, Store};

/// A connection that is not there after this long is given up (and tried again, see [`retry`]).
const CONNECT_TIMEOUT: &str = "5 seconds";
/// One request, body included. Objects are at most some hundred MiB.
const REQUEST_TIMEOUT: &str = "120 seconds";

/// Opens the store that `url` names, and takes the URL's path as the root of all keys.
///
/// Understands `s3://bucket/prefix`, `gs://`, `az://`, `http(s)://`, `file:///folder`, `memory:///` (a fresh, empty store
/// each time: for tests) and plain paths, relative ones from the current folder. Credentials, endpoints and the like come
/// from the usual variables (`AWS_*`, `GOOGLE_*`, `AZURE_*`; `AWS_ENDPOINT` and `AWS_ALLOW_HTTP=true` for another S3
/// server). Nothing is contacted and no folder is made before the first operation.
///
/// # Errors
/// [`StorageError::InvalidUrl`] when the URL or the configuration of its client cannot be used.
pub fn open(url: &str) -> Result<Store, StorageError> {
    open_with(url, &own())
}

/// [`open`], without a client that tries again by itself: for readers that count what they ask, see [`crate::Reader`].
///
/// # Errors
/// As [`open`].
pub fn open_once(url: &str) -> Result<Store, StorageError> {
    open_retrying(url, &own(), &RetryConfig { max_retries: 0, ..retry() })
}

/// The process's variables.
fn own() -> Vec<(String, String)> {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// [`open`] with these variables in place of the process's own (of Google's store only the process's count).
///
/// # Errors
/// As [`open`].
pub fn open_with(url: &str, variables: &[(String, String)]) -> Result<Store, StorageError> {
    open_retrying(url, variables, &retry())
}

fn open_retrying(url: &str, variables: &[(String, String)], retry: &RetryConfig) -> Result<Store, StorageError> {
    let refuse = |reason: String| StorageError::InvalidUrl { url: url.to_owned(), reason };
    if url.trim().is_empty() {
        return Err(refuse("it is empty".into()));
    }
    if !url.contains("://") {
        return open_folder(FilePath::new(url)).map_err(refuse);
    }
    let parsed = Url::parse(url).map_err(|e| refuse(e.to_string()))?;
    if let Some(bare) = without_secrets(&parsed) {
        let reason =
            "credentials do not belong into a URL, which specs, logs and pages show: give them in the environment";
        return Err(StorageError::InvalidUrl { url: bare, reason: reason.to_owned() });
    }
    if parsed.scheme() == "file" {
        let folder =
            parsed.to_file_path().map_err(|()| refuse("a file URL has three slashes: file:///folder".into()))?;
        return open_folder(&folder).map_err(refuse);
    }
    let (scheme, root) = ObjectStoreScheme::parse(&parsed).map_err(|e| refuse(e.to_string()))?;
    let inner = build(&scheme, &parsed, variables, retry).map_err(|e| refuse(e.to_string()))?;
    let shown = if scheme == ObjectStoreScheme::Memory { "memory://" } else { url.trim_end_matches('/') };
    Ok(Store::new(inner, root, shown.to_owned(), None))
}

/// The URL without what may be secret in it; `None`: there is nothing such.
fn without_secrets(url: &Url) -> Option<String> {
    // abfss://container@account.dfs.core.windows.net is Azure's way to name a container.
    let names_a_user = !url.username().is_empty() && !url.scheme().starts_with("abfs");
    (names_a_user || url.password().is_some() || url.query().is_some()).then(|| {
        let authority = url.host_str().unwrap_or_default();
        format!("{}://{authority}{}", url.scheme(), url.path())
    })
}

fn open_folder(folder: &FilePath) -> Result<Store, String> {
    let absolute = resolve_dots(&std::path::absolute(folder).map_err(|e| e.to_string())?);
    let root = Path::from_absolute_path(&absolute).map_err(|e| e.to_string())?;
    let shown = Url::from_file_path(&absolute).map_err(|()| "it is not a path".to_owned())?;
    // A put that returned is on the disk: the journal and the checkpoints promise what S3 promises.
    let inner = LocalFileSystem::new().with_fsync(true);
    Ok(Store::new(Arc::new(inner), root, shown.as_str().trim_end_matches('/').to_owned(), Some(absolute)))
}

/// Takes `..` out of an absolute path. The folder need not exist yet, so symbolic links are not followed.
fn resolve_dots(path: &FilePath) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut resolved, part| {
        if part == Component::ParentDir {
            _ = resolved.pop()
        } else {
            resolved.push(part)
        }
        resolved
    })
}

/// An unreachable store is reported within about half a minute: connections are refused at once or given up after
/// [`CONNECT_TIMEOUT`], a few times.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(3),
            base: 2.0,
        },
        max_retries: 4,
        retry_timeout: Duration::from_secs(20),
    }
}

fn build(
    scheme: &ObjectStoreScheme,
    url: &Url,
    variables: &[(String, String)],
    retry: &RetryConfig,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    use ClientConfigKey::{ConnectTimeout, Timeout};
    Ok(match scheme {
        ObjectStoreScheme::Memory => Arc::new(InMemory::new()),
        ObjectStoreScheme::AmazonS3 => {
            let defaults = AmazonS3Builder::new()
                .with_config(object_store::aws::AmazonS3ConfigKey::Client(ConnectTimeout), CONNECT_TIMEOUT)
                .with_config(object_store::aws::AmazonS3ConfigKey::Client(Timeout), REQUEST_TIMEOUT);
            let builder = named(variables, "AWS_").fold(defaults, |builder, (key, value)| match key.parse() {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            });
            Arc::new(builder.with_url(url.as_str()).with_retry(retry.clone()).build()?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::from_env().with_client_options(client()).with_retry(retry.clone());
            Arc::new(builder.with_url(url.as_str()).build()?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let defaults = MicrosoftAzureBuilder::new()
                .with_config(object_store::azure::AzureConfigKey::Client(ConnectTimeout), CONNECT_TIMEOUT)
                .with_config(object_store::azure::AzureConfigKey::Client(Timeout), REQUEST_TIMEOUT);
            let builder = named(variables, "AZURE_").fold(defaults, |builder, (key, value)| match key.parse() {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            });
            Arc::new(builder.with_url(url.as_str()).with_retry(retry.clone()).build()?)
        }
        _ => {
            let host = &url[..url::Position::BeforePath];
            let builder = HttpBuilder::new().with_url(host).with_client_options(client().with_allow_http(true));
            Arc::new(builder.with_retry(retry.clone()).build()?)
        }
    })
}

fn client() -> ClientOptions {
    ClientOptions::new()
        .with_config(ClientConfigKey::ConnectTimeout, CONNECT_TIMEOUT)
        .with_config(ClientConfigKey::Timeout, REQUEST_TIMEOUT)
}

/// The variables that start with `prefix`, names in lower case, as the clients' configuration keys are spelt.
fn named<'a>(variables: &'a [(String, String)], prefix: &'a str) -> impl Iterator<Item = (String, &'a str)> {
    variables
        .iter()
        .filter(move |(key, _)| key.starts_with(prefix))
        .map(|(key, value)| (key.to_ascii_lowercase(), value.as_str()))
}
