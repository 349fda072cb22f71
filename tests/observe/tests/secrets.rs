//! Secrets of a run are in nothing that its programs print, log, show, send or keep.

#[path = "secrets/canaries.rs"]
mod canaries;
#[path = "secrets/guarded.rs"]
mod guarded;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use r2o_test_kit::not_run;
use reqwest::{Certificate, Client, Response, StatusCode, redirect::Policy};

use canaries::Said;
use guarded::Guarded;

const JOB: &str = "guarded";
/// For processes that end, with what they have left to send, and for pages that are told of the end.
const END: Duration = Duration::from_secs(60);

/// What people ask about a job, in every format.
fn ask_all(fleet: &Guarded) -> Result<Vec<Said>> {
    let state = fleet.state();
    let questions: &[&[&str]] = &[
        &["list"],
        &["get", JOB],
        &["describe", JOB],
        &["why", JOB],
        &["events", JOB],
        &["logs", JOB],
        &["fleet"],
        &["checkpoints", "ls", JOB],
        &["checkpoints", "verify", JOB],
        &["ledger", "verify", JOB],
        &["ledger", "show", JOB],
        &["replay", &state],
        &["version"],
    ];
    let mut said = Vec::new();
    for question in questions {
        for format in ["table", "wide", "json", "yaml"] {
            let answer = expect(0, fleet.ask("reader", &[question, ["-o", format].as_slice()].concat())?)?;
            said.push(answer.must_hold("TRACE")?);
        }
    }
    let file = fleet.path("report.html");
    for words in [["report", JOB, "--out", &file].as_slice(), &["top", "--once"]] {
        said.push(expect(0, fleet.ask("reader", words)?)?);
    }
    said.push(Said::new("report.html", std::fs::read(file)?).must_hold(JOB)?);
    Ok(said)
}

/// An answer that came with the exit code that was expected.
fn expect(code: i32, (came, answer): (Option<i32>, Said)) -> Result<Said> {
    ensure!(came == Some(code), "{}: {came:?}\n{}", answer.what, String::from_utf8_lossy(&answer.bytes));
    Ok(answer)
}

/// What people are refused, which is when a program has something to say about what it was given.
fn refused_people(fleet: &mut Guarded) -> Result<Vec<Said>> {
    let secret = fleet.canaries.invent("the password of a URL");
    fleet.write_job("odd.json", Some(&format!("s3://me:{secret}@bucket/photos")))?;
    let [job, odd] = ["job.json", "odd.json"].map(|name| fleet.path(name));
    let requests: [(&str, &[&str], i32); 5] = [
        ("stranger", &["list"], 9),
        ("reader", &["submit", &job], 9),
        ("submitter", &["submit", &odd], 4),
        ("submitter", &["data", "inspect", "az://container/photos"], 4),
        ("submitter", &["data", "inspect", "gs://bucket/photos"], 4),
    ];
    requests.into_iter().map(|(role, words, code)| expect(code, fleet.ask(role, words)?)).collect()
}

/// What programs say of files and variables that they cannot use, and of all their options.
fn refused_programs(fleet: &mut Guarded) -> Result<Vec<Said>> {
    let odd = fleet.canaries.invent("a line that cannot be read");
    for (file, text) in [("odd.tokens", format!("workers {odd}")), ("odd.key", format!("{odd}\n"))] {
        std::fs::write(fleet.path(file), text)?;
    }
    let state = fleet.path("state");
    let [tokens, cert, key, stranger] =
        ["odd.tokens", "server.pem", "odd.key", "stranger.token"].map(|name| fleet.path(name));
    let starts: [(&str, &[&str], i32); 6] = [
        ("r2o-coordinator", &["--state", &state, "--tokens", &tokens], 1),
        ("r2o-coordinator", &["--state", &state, "--tls-cert", &cert, "--tls-key", &key], 1),
        ("r2o-worker", &["run", "--token-file", &stranger], 3),
        ("r2o-coordinator", &["--help"], 0),
        ("r2o-worker", &["run", "--help"], 0),
        ("r2octl", &["--help"], 0),
    ];
    let said = starts.into_iter().map(|(program, words, code)| expect(code, fleet.run(program, words, &[])?));
    let mut said = said.collect::<Result<Vec<_>>>()?;
    let headers = [("OTEL_EXPORTER_OTLP_HEADERS", odd.as_str())];
    said.push(expect(1, fleet.run("r2o-coordinator", &["--state", &state], &headers)?)?);
    said.push(expect(1, fleet.run("r2o-worker", &["run"], &headers)?)?);
    Ok(said)
}

/// A browser that trusts the run's authority.
fn browser(fleet: &Guarded) -> Result<Client> {
    let authority = Certificate::from_pem(&std::fs::read(fleet.authority())?)?;
    Ok(Client::builder().tls_certs_only([authority]).redirect(Policy::none()).build()?)
}

/// An answer with its headers.
async fn whole(answer: Response) -> Result<Said> {
    let what = answer.url().to_string();
    let head = format!("{} {:?}\n", answer.status(), answer.headers());
    Ok(Said::new(what, [head.as_bytes(), &answer.bytes().await?].concat()))
}

/// A page that is open while the job runs, signed in as a reader.
struct Page {
    client: Client,
    url: String,
    cookie: String,
    live: Vec<Response>,
}

impl Page {
    async fn open(fleet: &mut Guarded) -> Result<(Self, Vec<Said>)> {
        let (client, url) = (browser(fleet)?, format!("https://{}", fleet.web[0]));
        let mut page = Self { client, url, cookie: String::new(), live: Vec::new() };
        let refused = page.sign_in(&fleet.stranger).await?;
        ensure!(refused.status() == StatusCode::UNAUTHORIZED, "{refused:?}");
        let refused = vec![whole(refused).await?];
        let answer = page.sign_in(&fleet.token[1]).await?;
        let cookie = answer.headers().get("set-cookie").context("no cookie")?.to_str()?;
        cookie.split(';').next().unwrap_or_default().clone_into(&mut page.cookie);
        let (_, value) = page.cookie.split_once('=').context("a cookie without a value")?;
        fleet.canaries.add("the cookie of a session", value.as_bytes());
        page.live.push(page.get("/live").await?);
        Ok((page, refused))
    }

    async fn sign_in(&self, token: &str) -> Result<Response> {
        let request = self.client.post(format!("{}/sign-in", self.url)).header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        Ok(request.body(format!("token={token}&next=%2F")).send().await?)
    }

    async fn get(&self, path: &str) -> Result<Response> {
        let request = self.client.get(format!("{}{path}", self.url)).header("cookie", &self.cookie);
        Ok(request.send().await?.error_for_status()?)
    }

    /// Everything that it shows, and what it was told meanwhile.
    async fn read(mut self) -> Result<Vec<Said>> {
        let mut said = Vec::new();
        for mut live in std::mem::take(&mut self.live) {
            let mut told = Said::new(live.url().to_string(), []);
            let end = async {
                while !told.holds("Succeeded") {
                    told.bytes.extend(live.chunk().await?.context("the stream ended before the job")?);
                }
                anyhow::Ok(())
            };
            tokio::time::timeout(END, end).await.context("a page that is open is not told")??;
            said.push(told);
        }
        for path in ["", "/curves", "/report"] {
            said.push(whole(self.get(&format!("/jobs/{JOB}{path}")).await?).await?);
        }
        said.push(whole(self.get("/").await?).await?.must_hold(JOB)?);
        Ok(said)
    }
}

/// What Prometheus reads of each program.
async fn metrics(fleet: &Guarded) -> Result<Vec<Said>> {
    let client = browser(fleet)?;
    let mut said = Vec::new();
    for address in &fleet.web {
        let ask = |token: &str| client.get(format!("https://{address}/metrics")).bearer_auth(token).send();
        said.push(whole(ask(&fleet.token[1]).await?).await?.must_hold("r2o_build_info")?);
        said.push(whole(ask(&fleet.stranger).await?).await?);
    }
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_run_puts_out_holds_a_secret() -> Result<()> {
    let Some(s3) = r2o_test_stores::program() else {
        not_run("needs an S3 server: cargo xtask setup --s3");
        return Ok(());
    };
    let mut fleet = Guarded::start(&s3).await?;
    let (page, mut said) = Page::open(&mut fleet).await?;
    fleet.write_job("job.json", None)?;
    said.push(expect(0, fleet.ask("submitter", &["submit", "--watch", &fleet.path("job.json")])?)?);
    said.extend(ask_all(&fleet)?);
    said.extend(refused_people(&mut fleet)?);
    said.extend(refused_programs(&mut fleet)?);
    said.extend(page.read().await?);
    said.extend(metrics(&fleet).await?);
    said.extend(fleet.stop().await?);
    said.extend(fleet.objects().await?);
    said.push(Said::new("what OTLP sent", fleet.receiver.bytes()).must_hold("compute_step")?);
    let tokens = fleet.receiver.tokens();
    ensure!(tokens.iter().all(|token| token.starts_with("Bearer canary-")), "the receiver's token came: {tokens:?}");
    let found = fleet.canaries.found_in(&said)?;
    ensure!(found.is_empty(), "{} finds: {:#?}", found.len(), &found[..found.len().min(20)]);
    let bytes: usize = said.iter().map(|said| said.bytes.len()).sum();
    println!("{} secrets are in none of {} outputs, {bytes} bytes", fleet.canaries.len(), said.len());
    Ok(())
}
