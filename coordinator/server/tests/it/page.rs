//! The status page over HTTP.

use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};

use super::kit::*;

fn browser() -> Client {
    Client::builder().redirect(Policy::none()).build().unwrap()
}

fn at(handle: &r2o_coordinator::Handle, path: &str) -> String {
    format!("{}{path}", handle.web_url().unwrap())
}

async fn get(handle: &r2o_coordinator::Handle, path: &str) -> (StatusCode, String) {
    let answer = browser().get(at(handle, path)).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// Presses a button, as one of our own pages does.
async fn press(handle: &r2o_coordinator::Handle, path: &str, cookie: &str) -> Response {
    let request = browser().post(at(handle, path)).header("sec-fetch-site", "same-origin").header("cookie", cookie);
    request.header("content-type", "application/x-www-form-urlencoded").body("reason=a%20test").send().await.unwrap()
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_without_jobs_says_what_to_do_and_every_answer_is_fenced_in() {
    let place = Place::new();
    let handle = place.start().await;
    let answer = browser().get(at(&handle, "/")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let policy = header(&answer, "content-security-policy");
    names(policy, &["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'self'"]);
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
    assert_eq!(header(&answer, "referrer-policy"), "same-origin");
    assert_eq!(header(&answer, "cache-control"), "no-store");
    let html = answer.text().await.unwrap();
    names(&html, &["No jobs yet", "r2octl submit job.yaml", "No workers are connected"]);
    for path in html.split(['"']).filter(|word| word.starts_with("/assets/")) {
        let asset = browser().get(at(&handle, path)).send().await.unwrap();
        assert_eq!(asset.status(), StatusCode::OK, "{path}");
        assert!(header(&asset, "cache-control").contains("immutable"));
    }
    assert_eq!(get(&handle, "/assets/0000000000000000/page.css").await.0, StatusCode::NOT_FOUND);
    let (status, text) = get(&handle, "/jobs/%3Cscript%3Ealert(1)%3C%2Fscript%3E").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains("&lt;script&gt;alert(1)") && !text.contains("<script>alert"), "{text}");
    handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_shown_whole_and_what_people_wrote_is_only_text() {
    let place = Place::new();
    let handle = place.start().await;
    let mut job = place.job("curious", 2);
    job["metadata"]["labels"] = serde_json::json!({"note": "<img src=x onerror=alert(1)>"});
    submit(&handle, &job).await.unwrap();
    let mut worker = FakeWorker::join(&handle, "<b>worker</b>").await;
    worker.work_until(|order| is_ticket(order, 2)).await;
    until(&handle, "curious", |p| p.step >= 2).await;
    let (status, html) = get(&handle, "/jobs/curious").await;
    assert_eq!(status, StatusCode::OK);
    names(
        &html,
        &["Trains on 1 worker", "Step <b>", "GenerationOpened", "&lt;img src=x onerror", "<figure", "<svg aria-hidden"],
    );
    names(&html, &["&lt;b&gt;worker&lt;/b&gt;", "Checkpoint now", "Cancel …"]);
    assert!(!html.contains("<img src=x") && !html.contains("<b>worker") && !html.contains("style="), "{html}");
    let goodput = html.split_once("Goodput").unwrap().1.split_once('%').unwrap().0;
    let goodput: f64 = goodput.rsplit('>').next().unwrap().parse().unwrap();
    assert!(goodput > 0.0 && goodput <= 100.0, "{goodput}");
    let curves: serde_json::Value = serde_json::from_str(&get(&handle, "/jobs/curious/curves").await.1).unwrap();
    assert_eq!((&curves["step"][0], &curves["loss"][1]), (&1.into(), &0.5.into()));
    let (_, overview) = get(&handle, "/").await;
    names(&overview, &["href=\"/jobs/curious\"", "Running", "1 of 1"]);
    worker.work();
    until(&handle, "curious", |p| p.state == 4).await;
    let report = browser().get(at(&handle, "/jobs/curious/report")).send().await.unwrap();
    assert_eq!(report.status(), StatusCode::OK);
    names(header(&report, "content-security-policy"), &["sandbox"]);
    handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_open_is_told_what_changes_until_the_coordinator_stops() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 2)).await.unwrap();
    let mut stream = browser().get(at(&handle, "/jobs/a/live")).send().await.unwrap();
    assert_eq!(header(&stream, "content-type"), "text/event-stream");
    FakeWorker::join(&handle, "w").await.work();
    let mut text = String::new();
    let told = async {
        while !(text.contains("event: points") && text.contains("Succeeded")) {
            text.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
        }
    };
    tokio::time::timeout(SOON, told).await.expect("it is told in time");
    names(&text, &["event: part", "\"id\":\"status\"", "\"id\":\"events\""]);
    handle.shutdown().await;
    let over = async { while stream.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(SOON, over).await.expect("the stream ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_without_tokens_jobs_are_steered_by_our_own_pages_alone() {
    let place = Place::new();
    let handle = place.start().await;
    submit(&handle, &place.job("a", 2)).await.unwrap();
    let bare = |site: Option<&'static str>, origin: Option<String>| {
        let mut request = browser().post(at(&handle, "/jobs/a/pause")).body("reason=");
        request = request.header("content-type", "application/x-www-form-urlencoded");
        request = site.into_iter().fold(request, |r, site| r.header("sec-fetch-site", site));
        origin.into_iter().fold(request, |r, origin| r.header("origin", origin)).send()
    };
    for (site, origin) in [
        (Some("cross-site"), None),
        (Some("same-site"), None),
        (None, Some("https://evil.example".to_owned())),
        (None, None),
    ] {
        assert_eq!(bare(site, origin).await.unwrap().status(), StatusCode::FORBIDDEN);
    }
    let misled = browser().get(at(&handle, "/")).header("host", "evil.example").send().await.unwrap();
    assert_eq!(misled.status(), StatusCode::FORBIDDEN, "another site's name that leads here");
    assert!(!super::kit::get(&handle, "a").await.reason.contains("paused"));
    assert_eq!(bare(None, Some(handle.web_url().unwrap())).await.unwrap().status(), StatusCode::SEE_OTHER);
    names(&super::kit::get(&handle, "a").await.reason, &["is paused"]);
    assert_eq!(press(&handle, "/jobs/a/resume", "").await.status(), StatusCode::SEE_OTHER);
    let twice = press(&handle, "/jobs/a/resume", "").await;
    assert_eq!(twice.status(), StatusCode::CONFLICT);
    names(&twice.text().await.unwrap(), &["is not paused"]);
    assert_eq!(press(&handle, "/jobs/a/checkpoint", "").await.status(), StatusCode::CONFLICT);
    let (status, text) = get(&handle, "/no/such/page").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    names(&text, &["nothing at this address"]);
    assert_eq!(press(&handle, "/jobs/a/explode", "").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(press(&handle, "/jobs/none/cancel", "").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(press(&handle, "/jobs/a/cancel", "").await.status(), StatusCode::SEE_OTHER);
    names(&super::kit::get(&handle, "a").await.reason, &["cancelled: a test"]);
    handle.shutdown().await;
}

/// Signs in with a token; gives the status and the cookie.
async fn sign_in(handle: &r2o_coordinator::Handle, token: &str) -> (StatusCode, String) {
    let request = browser().post(at(handle, "/sign-in")).header("sec-fetch-site", "same-origin");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer = request.body(format!("token={token}&next=%2Fjobs%2Fa")).send().await.unwrap();
    let cookie = header(&answer, "set-cookie").to_owned();
    if answer.status() == StatusCode::SEE_OTHER {
        assert_eq!(header(&answer, "location"), "/jobs/a");
        names(&cookie, &["HttpOnly", "SameSite=Strict", "Path=/"]);
    }
    assert!(!cookie.contains(token));
    (answer.status(), cookie.split(';').next().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_a_browser_signs_in_and_may_what_its_role_may() {
    let place = Place::new();
    std::fs::write(place.path("tokens"), "worker w-secret\nreader r-secret\nsubmitter s-secret\n").unwrap();
    let mut options = place.options();
    options.tokens = Some(place.path("tokens"));
    let handle = r2o_coordinator::Service::start(options).await.unwrap();
    for path in ["/", "/jobs/a", "/jobs/a/curves", "/jobs/a/report"] {
        let (status, html) = get(&handle, path).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        names(&html, &["action=\"/sign-in\"", "type=\"password\""]);
    }
    assert_eq!(get(&handle, "/live").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(sign_in(&handle, "wrong").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(sign_in(&handle, "w-secret").await.0, StatusCode::FORBIDDEN, "a worker's token opens no page");
    let (_, reader) = sign_in(&handle, "r-secret").await;
    let (_, submitter) = sign_in(&handle, "s-secret").await;
    let seen = |cookie: String| browser().get(at(&handle, "/")).header("cookie", cookie).send();
    assert_eq!(seen(reader.clone()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(press(&handle, "/jobs/a/pause", &reader).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        press(&handle, "/jobs/a/pause", &submitter).await.status(),
        StatusCode::NOT_FOUND,
        "it may, but there is no job"
    );
    let bearer = browser().get(at(&handle, "/")).bearer_auth("r-secret").send().await.unwrap();
    assert_eq!(bearer.status(), StatusCode::OK);
    assert_eq!(press(&handle, "/sign-out", &submitter).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(seen(submitter).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    std::fs::write(place.path("tokens"), "reader another\n").unwrap();
    assert_eq!(
        seen(reader).await.unwrap().status(),
        StatusCode::UNAUTHORIZED,
        "a token that is taken away ends its sessions"
    );
    handle.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_pages_are_kept_up_to_date() {
    let place = Place::new();
    let handle = place.start().await;
    let client = browser();
    let mut open = Vec::new();
    let refused = loop {
        let answer = client.get(at(&handle, "/live")).send().await.unwrap();
        if answer.status() != StatusCode::OK {
            break answer;
        }
        open.push(answer);
        assert!(open.len() <= 256, "one more was served");
    };
    assert_eq!((open.len(), refused.status()), (256, StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(get(&handle, "/").await.0, StatusCode::OK, "pages are still served");
    handle.shutdown().await;
}
