//! A fleet with every secret that there is: tokens of each role, keys of both sides of TLS, keys of object stores, and
//! headers and key for a receiver of OTLP; all of it logged as verbosely as can be.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use r2o_observe::{Receiver, small_job};
use r2o_test_kit::{Authority, Coordinator, Process, Signal, Worker, WorkerOptions, binary, free_port};
use r2o_test_stores::Server;
use r2o_transport::ServerTlsFiles;
use tempfile::TempDir;

use super::canaries::{Canaries, Said};
use super::{END, JOB};

/// Certificates are valid until then.
const VALID: i32 = 2100;
const ROLES: [&str; 4] = ["worker", "reader", "submitter", "admin"];

pub(crate) struct Guarded {
    // Fields drop in order: processes end before the store and the folder go.
    workers: Vec<Worker>,
    pub(crate) coordinator: Coordinator,
    pub(crate) receiver: Receiver,
    server: Server,
    folder: TempDir,
    pub(crate) canaries: Canaries,
    pub(crate) token: [String; 4],
    pub(crate) stranger: String,
    /// Host and port of each one's web server: the coordinator's first.
    pub(crate) web: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Guarded {
    pub(crate) async fn start(s3: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("r2o-secrets-").tempdir()?;
        let place = folder.path();
        let server = Server::start(s3, Ipv4Addr::LOCALHOST)?;
        let mut canaries = Canaries::default();
        let token = ROLES.map(|role| canaries.invent(&format!("the {role} token")));
        let stranger = canaries.invent("the token of a stranger");
        for (role, token) in ROLES.iter().chain(&["stranger"]).zip(token.iter().chain([&stranger])) {
            std::fs::write(place.join(format!("{role}.token")), token)?;
        }
        let lines = ROLES.iter().zip(&token).map(|(role, token)| format!("{role} {token}\n"));
        std::fs::write(place.join("tokens"), lines.collect::<String>())?;
        let authority = Authority::new(place, "ca")?;
        for name in ["server", "client"] {
            let [cert, key] = ["pem", "key"].map(|end| place.join(format!("{name}.{end}")));
            authority.sign(&cert, &key, VALID)?;
            canaries.add_key(&format!("the {name}'s key"), &key)?;
        }
        let receiver = Receiver::start(Some(tls(place))).await?;
        let environment = environment(place, &server, &receiver, &mut canaries);
        let web = (0..3).map(|_| Ok(format!("127.0.0.1:{}", free_port()?))).collect::<Result<Vec<_>>>()?;
        let coordinator = coordinator(place, &server, &web[0], &environment).await?;
        let workers = Vec::new();
        let mut fleet =
            Self { workers, coordinator, receiver, server, folder, canaries, token, stranger, web, environment };
        // One logs in each format.
        for (name, format) in [("worker-0", "text"), ("worker-1", "json")] {
            fleet.add_worker(name, format)?;
        }
        Ok(fleet)
    }

    fn add_worker(&mut self, name: &str, format: &str) -> Result<()> {
        let web = self.web[self.workers.len() + 1].clone();
        let more = ["--http", &web, "--log-format", format, "--token-file", &self.path("worker.token")];
        let options = WorkerOptions { threads: 1, audit: false, more: more.map(str::to_owned).to_vec() };
        let url = self.coordinator.url.clone();
        let environment: Vec<_> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.workers.push(Worker::start_on(None, self.folder.path(), name, &url, &options, &environment)?);
        Ok(())
    }

    /// A file of the run's folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The certificate that all servers' are signed by.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Where everything is kept.
    pub(crate) fn state(&self) -> String {
        self.server.url()
    }

    /// Writes a job's file, as it is and with `url` as the place of its data, if any.
    pub(crate) fn write_job(&self, file: &str, url: Option<&str>) -> Result<()> {
        let mut job = small_job(JOB, self.folder.path())?;
        job.spec.epochs = 2;
        (job.spec.fleet.min_workers, job.spec.fleet.max_workers) = (2, 2);
        job.spec.checkpoint.url = None;
        url.into_iter().for_each(|url| url.clone_into(&mut job.spec.data.url));
        Ok(std::fs::write(self.path(file), serde_json::to_vec(&job)?)?)
    }

    /// Runs a program of ours to its end, with the fleet's variables and `more`: its exit code, and all that it printed.
    pub(crate) fn run(&self, program: &str, words: &[&str], more: &[(&str, &str)]) -> Result<(Option<i32>, Said)> {
        let mut command = Command::new(binary(program)?);
        command.args(words).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("R2O_COORDINATOR", &self.coordinator.url).envs(more.iter().copied());
        let output = command.output().with_context(|| format!("cannot run {program}"))?;
        let said = Said::new(format!("`{program} {}`", words.join(" ")), [output.stdout, output.stderr].concat());
        Ok((output.status.code(), said))
    }

    /// Runs r2octl as somebody of this role.
    pub(crate) fn ask(&self, role: &str, words: &[&str]) -> Result<(Option<i32>, Said)> {
        self.run("r2octl", words, &[("R2O_TOKEN_FILE", &self.path(&format!("{role}.token")))])
    }

    /// Ends all programs as an operator does, and gives what they logged.
    pub(crate) async fn stop(&mut self) -> Result<Vec<Said>> {
        let workers = self.workers.iter_mut().map(|worker| &mut worker.process);
        let mut logs = Vec::new();
        for process in workers.chain([&mut self.coordinator.process]) {
            process.signal(Signal::TERM)?;
            let status = process.wait_end(END).await?;
            ensure!(status.success(), "{} ended with {status}:\n{}", process.name(), process.log_tail(10));
            logs.push(log(process)?);
        }
        Ok(logs)
    }

    /// Everything that is kept in the object store.
    pub(crate) async fn objects(&self) -> Result<Vec<Said>> {
        let store = r2o_storage::open_with(&self.state(), &self.environment)?;
        let mut objects = Vec::new();
        for (key, _) in store.list("").await? {
            let bytes = store.get(&key).await?;
            objects.push(Said::new(format!("object {key}"), bytes));
        }
        for kept in ["journal/", "manifest", "report"] {
            ensure!(objects.iter().any(|object| object.what.contains(kept)), "no {kept} among {objects:#?}");
        }
        Ok(objects)
    }
}

/// A program's whole log, which holds the finest lines.
fn log(process: &Process) -> Result<Said> {
    Said::new(format!("the log of {}", process.name()), process.log()).must_hold("TRACE")
}

/// What servers show, and ask of their clients.
fn tls(place: &Path) -> ServerTlsFiles {
    let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| place.join(name));
    ServerTlsFiles { cert, key, client_ca: Some(ca) }
}

/// The variables of all programs.
fn environment(place: &Path, server: &Server, receiver: &Receiver, canaries: &mut Canaries) -> Vec<(String, String)> {
    let file = |name: &str| place.join(name).display().to_string();
    let mut all: Vec<_> = server.environment().into_iter().collect();
    for (name, value) in &all {
        if name.contains("KEY") {
            canaries.add(name, value.as_bytes());
        }
    }
    for name in ["AZURE_STORAGE_ACCOUNT_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY"] {
        all.push((name, canaries.invent(name)));
    }
    let [token, tenant] = ["the receiver's token", "the receiver's tenant"].map(|of| canaries.invent(of));
    let given = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "r2o".to_owned()),
        ("R2O_LOG", "trace".to_owned()),
        ("R2O_TLS_CA", file("ca.pem")),
        ("R2O_TLS_CERT", file("client.pem")),
        ("R2O_TLS_KEY", file("client.key")),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://{}", receiver.address)),
        ("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer%20{token},x-tenant={tenant}")),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", file("ca.pem")),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", file("client.pem")),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", file("client.key")),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "300".to_owned()),
    ];
    all.extend(given);
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

async fn coordinator(place: &Path, server: &Server, web: &str, more: &[(String, String)]) -> Result<Coordinator> {
    let file = |name: &str| place.join(name).display().to_string();
    let (tokens, ca, cert, key) = (file("tokens"), file("ca.pem"), file("server.pem"), file("server.key"));
    let tls = ["--tls-client-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    let words = [["--tokens", &tokens, "--http", web, "--log-format", "json"].as_slice(), &tls].concat();
    let environment: Vec<_> = more.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Coordinator::start_at("127.0.0.1:0", place, "coordinator", &server.url(), &words, &environment).await
}
